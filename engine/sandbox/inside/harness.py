"""What runs in a program's own process: the program itself, its tests, or calls of its function; each result is told in a line of JSON.

Standard library only. Lines begin with a mark that the program isn't told. Knows nothing of limits.
"""

from __future__ import annotations

import ast
import io
import json
import math
import sys
import traceback
from collections.abc import Callable
from types import CodeType
from typing import Any

Told = Callable[[dict[str, Any]], None]
PROGRAM, TESTS = "<program>", "<tests>"
_MOST_TEXT = 400


class NotANumber(ValueError):
    """A function gave back what JSON can't hold."""


def do(job: dict[str, Any], tell: Told) -> None:
    """Carries out one job: {"kind": program, tests or calls, "source", ...}. Whatever it raises is told as an error."""
    try:
        {"program": _run, "tests": _test, "calls": _call}[job["kind"]](job, tell)
    except BaseException as error:  # the program may raise SystemExit, or an exception that is no Exception
        tell({"error": described(error)})
    sys.stdout.flush()
    sys.stderr.flush()


def _run(job: dict[str, Any], tell: Told) -> None:
    try:
        exec(compile(job["source"], PROGRAM, "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    tell({"done": True})


def _call(job: dict[str, Any], tell: Told) -> None:
    space: dict[str, Any] = {"__name__": "program"}
    exec(compile(job["source"], PROGRAM, "exec"), space)
    function = space.get(job["function"])
    if not callable(function):
        raise NameError(f"there is no function called {job['function']}")
    for number, arguments in enumerate(job["calls"]):
        try:
            value = function(*arguments)
            line = {"call": number, "value": plain(value)}
            json.dumps(line, allow_nan=False)
        except BaseException as error:
            line = {"call": number, "error": described(error)}
        tell(line)


def plain(value: Any) -> Any:
    """Numbers of other libraries as Python's own. Raises NotANumber for what JSON can't hold."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise NotANumber(f"{value} is no number that can be used")
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise NotANumber(f"a {type(value).__name__} can't be given back, only numbers, texts, lists and None")
    return value


def _test(job: dict[str, Any], tell: Told) -> None:
    # Read before the program runs, so that it can't get between.
    steps = steps_of(job["tests"], job["entry"])
    tell({"tests": sum(is_test for _, is_test, _ in steps)})
    space: dict[str, Any] = {"__name__": "program"}
    try:
        exec(compile(job["source"], PROGRAM, "exec"), space)
    except SystemExit as error:
        raise RuntimeError(f"the program ends itself (exit {error.code})") from error
    for code, is_test, text in steps:
        try:
            exec(code, space)
        except BaseException as error:
            told = {"passed": False, "text": text, "error": described(error)}
            if not is_test:
                raise
        else:
            told = {"passed": True, "text": text}
        if is_test:
            tell(told)


def steps_of(tests: str, entry: str) -> list[tuple[CodeType, bool, str]]:
    """(what to run, whether it is a test, its text), in order: each top-level assert, each function test_..., each method of a TestCase.

    The asserts of a function `check` that takes what is to be tested count one by one; `entry` is what to hand to it, if nothing does.
    """
    tree = ast.parse(tests, TESTS)
    statements = _opened(tree.body, entry)
    steps = [(_code(statement), _tests(statement), _text(statement)) for statement in statements]
    for statement in statements:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test") and not statement.args.args:
            steps.append(_said(f"{statement.name}()"))
        if isinstance(statement, ast.ClassDef) and any(ast.unparse(base).endswith("TestCase") for base in statement.bases):
            names = [inner.name for inner in statement.body if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test")]
            steps += [_said(f"{statement.name}({name!r}).debug()") for name in names]
    return steps


def _opened(statements: list[ast.stmt], entry: str) -> list[ast.stmt]:
    """The body of `def check(candidate)` in place of its one call, so that each of its asserts is a test of its own."""
    check = next((s for s in statements if isinstance(s, ast.FunctionDef) and s.name == "check" and len(s.args.args) == 1), None)
    if check is None or any(isinstance(inner, (ast.Return, ast.Yield)) for inner in ast.walk(check)):
        return statements
    call = next((s for s in statements if isinstance(s, ast.Expr) and _calls(s.value, "check")), None)
    if call is None and not entry:
        return statements
    handed = ast.unparse(call.value.args[0]) if call is not None else entry
    bound = ast.parse(f"{check.args.args[0].arg} = {handed}").body
    rest = [s for s in statements if s is not check and s is not call]
    return [*rest, *bound, *check.body]


def _calls(value: ast.expr, name: str) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == name and len(value.args) == 1


def _tests(statement: ast.stmt) -> bool:
    """Definitions only say what a test is; of the rest, whatever asserts or calls something by itself."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    return any(isinstance(inner, ast.Assert) for inner in ast.walk(statement))


def _said(text: str) -> tuple[CodeType, bool, str]:
    return compile(text, TESTS, "exec"), True, text


def _code(statement: ast.stmt) -> CodeType:
    return compile(ast.Module([statement], []), TESTS, "exec")


def _text(statement: ast.stmt) -> str:
    text = ast.unparse(statement)
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + " …"


def described(error: BaseException) -> dict[str, Any]:
    """{"type", "message", "line"}: the last line of the program itself that was on the way, 0 if there is none."""
    line = error.lineno or 0 if isinstance(error, SyntaxError) and error.filename == PROGRAM else 0
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == PROGRAM:
            line = frame.lineno or line
    try:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # a class of the program's own
        message = ""
    return {"type": type(error).__name__, "message": message[:_MOST_TEXT], "line": line}


def quiet(out: int, errors: int) -> None:
    """Points Python's own texts at these files."""
    sys.stdout = io.TextIOWrapper(io.FileIO(out, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(errors, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8", errors="replace")
