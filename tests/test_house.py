"""The rules of the house, held against the files that are there: who imports whom, how long a file gets, what is written where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "peft", "datasets", "tinker", "runpod", "openai")

# Each part of the engine may import its own layer and those before it.
LAYERS = (
    ("errors", "platforms", "jobs.states", "amounts"),
    ("paths", "system", "recipe", "rendering", "policy", "sandbox"),
    ("knowledge", "store", "server", "keys"),
    ("data", "endpoints", "models", "starts"),
    ("training", "evaluation"),
    ("jobs",),
    ("engine",),
    ("cli",),
)
RANK = {part: number for number, layer in enumerate(LAYERS) for part in layer}
# The table of states knows nothing, so that the store can hold to it.
LEAVES = ("engine.jobs.states",)
# What isn't named above stands beside the front door.
FRONT = RANK["engine"]
# These are shipped to a rented machine without the rest.
SHIPPED = {
    "server": {"errors", "platforms", "rendering", "server", "system"},
    "rendering": {"errors"},
    "system": {"errors", "platforms"},
    "platforms": set(),
    "errors": set(),
}
EXPORTS = {"Engine": "engine", "Recipe": "recipe", "EngineError": "errors"}
DASHBOARD = ("engine", "playground", "registry", "store", "recipe", "data", "rendering", "knowledge", "jobs.states", "models", "paths")
DASHBOARD += ("system", "errors")


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def only_for_types(condition: ast.If) -> Iterator[ast.AST]:
    if ast.unparse(condition.test).endswith("TYPE_CHECKING"):
        for statement in condition.body:
            yield from ast.walk(statement)


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports when it runs, anywhere in it, by full name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {inner for node in ast.walk(tree) if isinstance(node, ast.If) for inner in only_for_types(node)}
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "engine":
            yield from (f"engine.{EXPORTS.get(name.name, name.name)}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{name.name}" for name in node.names}
            yield from inside.intersection(LEAVES) or {node.module or ""}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def part_of(module: str) -> str:
    """`engine.store.jobs` belongs to `store`, `engine.recipe` to `recipe`."""
    return module.removeprefix("engine.") if module in LEAVES else module.split(".")[1]


def engine_imports() -> Iterator[tuple[Path, str, str]]:
    """(file, its part, the part that it imports) for all of the engine but its map."""
    for file in sources("engine"):
        if file == ROOT / "engine" / "__init__.py":
            continue
        for name in imported(file):
            if name.startswith("engine."):
                yield file, part_of(module_of(file)), part_of(name)


def loaded_by(code: str) -> set[str]:
    """The modules in a fresh Python after `code`."""
    code += "\nimport sys; print('LOADED', *sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("LOADED")[2].split())


def test_the_engine_knows_no_screen() -> None:
    guilty = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sources("engine")
        for name in imported(file)
        if name.split(".")[0] in ("app", "pages", "streamlit")
    ]
    assert not guilty


def test_imports_point_one_way() -> None:
    guilty = [
        f"{file.relative_to(ROOT)} imports engine.{other}"
        for file, own, other in engine_imports()
        if RANK.get(other, FRONT) > RANK.get(own, FRONT) or (own in SHIPPED and other not in SHIPPED[own])
    ]
    assert not guilty


def test_no_two_parts_need_each_other() -> None:
    needs: dict[str, set[str]] = {}
    for _, own, other in engine_imports():
        if own != other:
            needs.setdefault(own, set()).add(other)

    def reached(part: str) -> set[str]:
        seen: set[str] = set()
        ahead = [part]
        while ahead:
            new = needs.get(ahead.pop(), set()) - seen
            seen |= new
            ahead += new
        return seen

    assert not [part for part in needs if part in reached(part)]


def test_app_and_pages_stay_in_their_place() -> None:
    exported = {f"engine.{home}" for home in EXPORTS.values()}
    guilty = []
    for file in sources("app", "pages"):
        page = file.relative_to(ROOT).parts[0] == "pages"
        for name in imported(file):
            top = name.split(".")[0]
            inner = page and (top in ("sqlalchemy", "threading") or (name.startswith("engine.") and name not in exported))
            if inner or (top == "pages" and not page):
                guilty.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not guilty


def dashboard_modules() -> list[str]:
    own = [f"engine.{name}" for name in DASHBOARD]
    there = [name for name in own if (ROOT / f"{name.replace('.', '/')}.py").exists() or sources(name.replace(".", "/"))]
    return there + [module_of(file) for file in sources("app") if file.name not in ("main.py", "serve.py", "__init__.py")]


def test_what_the_dashboard_loads_is_light() -> None:
    """All together in one process; only where that is heavy is each looked at by itself."""
    known = dashboard_modules()
    ours, screens = ([name for name in known if name.startswith("app") == screen] for screen in (False, True))
    if "streamlit" in loaded_by("\n".join(f"import {name}" for name in ours)):
        assert not [name for name in ours if "streamlit" in loaded_by(f"import {name}")]
    if loaded_by("\n".join(f"import {name}" for name in [*ours, *screens])) & set(HEAVY):
        assert not [name for name in known if loaded_by(f"import {name}") & set(HEAVY)]


@pytest.mark.skipif(not (ROOT / "engine/models/nano/tokenizer.json").exists(), reason="the model that ships with Thinker isn't there")
def test_a_tokenizer_needs_no_torch() -> None:
    loaded = loaded_by("from engine.rendering import load_tokenizer\nload_tokenizer('engine/models/nano')")
    assert not loaded.intersection({"torch", "tinker", "transformers.models.auto.tokenization_auto"})


def test_only_one_module_asks_for_the_system() -> None:
    asks = re.compile(r"\bos\.name\b|\bsys\.platform\b|\bplatform\.system\(\) *[!=]=|\bimport (fcntl|msvcrt|winreg)\b")
    others = [file for file in sources("engine", "app", "pages") if file != ROOT / "engine" / "platforms.py"]
    assert not [str(file.relative_to(ROOT)) for file in others if asks.search(file.read_text(encoding="utf-8"))]


def test_files_stay_short() -> None:
    def length(file: Path) -> int:
        return len(file.read_text(encoding="utf-8").splitlines())

    long = [f"{file.relative_to(ROOT)} has {length(file)} lines" for file in sources("engine", "app") if length(file) > 400]
    long += [f"{file.relative_to(ROOT)} has {length(file)} lines" for file in sources("pages") if length(file) > 200]
    assert length(ROOT / "thinker.py") < 300
    assert not long


def test_modules_say_what_they_are() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in sources("engine", "app", "pages")
        if (text := file.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent


def test_nothing_names_the_machine_that_it_was_written_on() -> None:
    place = re.compile(r"(?<![\w.])/(?:" + "|".join(("work", "root", r"home/\w+", r"Users/\w+")) + r")/")
    files = [*sources("engine", "app", "pages", "benchmarks"), ROOT / "thinker.py", *ROOT.glob("*.md"), *ROOT.glob("*.toml")]
    assert not [str(file.relative_to(ROOT)) for file in files if place.search(file.read_text(encoding="utf-8"))]


def tree_in_readme() -> set[str]:
    """The paths in the README's annotated tree: one name a line, what it is after two spaces or a #, deeper is further in."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    paths: set[str] = set()
    for block in (block for block in blocks if re.search(r"^\W*engine/", block, re.MULTILINE)):
        above: list[tuple[int, str]] = []
        for line in block.splitlines():
            entry = re.match(r"([\s│├└─]*)([\w.][\w./-]*(?:, [\w.][\w./-]*)*)(?:\s{2,}|\s+#|\s*$)", line)
            if not entry:
                continue
            depth, names = len(entry[1]), entry[2].split(", ")
            above = [folder for folder in above if folder[0] < depth]
            inside = "".join(folder for _, folder in above)
            paths |= {inside + name for name in names}
            if names[0].endswith("/"):
                above.append((depth, names[0]))
    return paths


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README yet")
def test_the_readme_lists_every_file() -> None:
    listed = tree_in_readme()
    there = {file.relative_to(ROOT).as_posix() for file in sources("engine", "app", "pages") if file.name != "__init__.py"}
    assert not there - listed, "missing in the README's tree"
    gone = {path for path in listed if path.startswith(("engine/", "app/", "pages/")) and not (ROOT / path).exists()}
    assert not gone, "in the README's tree, but not there"


def names(lines: list[str]) -> dict[str, str]:
    """{package: version} of pinned requirements, names as pip compares them."""
    pinned = {}
    for line in lines:
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?(?:==(\S+))?", line):
            pinned[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2] or ""
    return pinned


def test_requirements_are_pinned_together() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if re.match(r"\w", line)]
    direct = names(lines)
    lock = names((ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines())
    assert direct == {name: lock[name] for name in direct}
    assert all(lock.values())
    assert all(re.search(r"  # \S+$", line) for line in lines), "each requirement says in a word what it's for"
    assert not [name for name in lock if name.startswith(("nvidia", "triton", "cuda"))], "these only some platforms have"
    assert not [name for name, version in lock.items() if "+" in version]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(names(project["dependencies"] + project["optional-dependencies"]["test"])) == set(direct)


def test_the_documents_are_there() -> None:
    for name in ("README.md", "TRAINING_GUIDE.md", "CHANGELOG.md", "benchmarks/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.startswith("# ") and len(text.splitlines()) > 10, name
        assert not re.search(r"^(<<<<<<<|=======|>>>>>>>)", text, re.MULTILINE), f"{name} holds an unfinished merge"


def test_lint() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stdout + result.stderr
