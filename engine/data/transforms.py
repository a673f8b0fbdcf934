"""What can be done to every example before it is learned from: named functions of texts, in the order that a recipe names them.

Texts in, texts out; what is asked for and can't be done to a row leaves that row out, with the reason. Rows of every shape go through:
both answers of a pair, what is expected of a prompt. Knows no files, no models and no tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.data.examples import Example, Message, Problem, Report
from engine.errors import DataError
from engine.recipe import Transform

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)\s*", re.DOTALL)
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_PLACE = re.compile(r"\{([^{}\n]{1,100})\}")
_MARKS = (
    (re.compile(r"^[ \t]*#{1,6}[ \t]+", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*[-*+][ \t]+", re.MULTILINE), ""),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\s]+\)"), r"\1"),
)


class LeftOut(Exception):
    """This row can't be used after that; says why."""


def _first_paragraph(text: str, change: Transform) -> str:
    return re.split(r"\n[ \t]*\n", text.strip(), maxsplit=1)[0].strip()


def _plain(text: str, change: Transform) -> str:
    for mark, kept in _MARKS:
        text = mark.sub(kept, text)
    return text


def _unfenced(text: str, change: Transform) -> str:
    found = _FENCE.search(text)
    return found[1].strip("\n") if found else text


def _compact_json(text: str, change: Transform) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        raise LeftOut(f"it is no JSON ({error})") from error


def _at_most(text: str, change: Transform) -> str:
    count = len(text.split())
    if change.words is not None and count > change.words:
        raise LeftOut(f"it has {count:,} words, and {change.words:,} are allowed")
    return text


FUNCTIONS: dict[str, Callable[[str, Transform], str]] = {
    "strip": lambda text, change: "\n".join(line.rstrip() for line in text.strip().splitlines()),
    "one_line": lambda text, change: " ".join(text.split()),
    "lower_case": lambda text, change: text.lower(),
    "first_paragraph": _first_paragraph,
    "first_line": lambda text, change: next((line.strip() for line in text.splitlines() if line.strip()), ""),
    "plain_text": _plain,
    "unfence": _unfenced,
    "compact_json": _compact_json,
    "drop_thoughts": lambda text, change: _THOUGHT.sub("", text),
    "at_most_words": _at_most,
    "replace": lambda text, change: text.replace(change.find, change.text),
}
"""All but `template`, which needs the row as well, and `system`, which changes no text that is there."""


def transformed(report: Report, transforms: Sequence[Transform], unit: str = "line") -> Report:
    """The report with its examples changed; what can't be is among the problems. Raises DataError where nothing is left."""
    if not transforms or not report.examples:
        return report
    kept, problems = changed(report.examples, transforms, unit)
    if not kept:
        raise DataError(
            f"nothing is left of {len(report.examples):,} rows after the changes to the data; the first: {problems[0]}",
            "Take that change out, or choose another profile.",
            where="recipe data.transforms",
        )
    notes = [*report.notes, *_missing(report.examples, transforms)]
    return replace(report, examples=kept, problems=[*report.problems, *problems], notes=notes)


def changed(examples: Iterable[Example], transforms: Sequence[Transform], unit: str = "line") -> tuple[list[Example], list[Problem]]:
    """(the examples changed, a problem for each that is left out). Older skills that are mixed in stay as they are."""
    found = each_changed(examples, transforms, unit)
    return [one for one in found if isinstance(one, Example)], [one for one in found if isinstance(one, Problem)]


def each_changed(examples: Iterable[Example], transforms: Sequence[Transform], unit: str = "line") -> list[Example | Problem]:
    """Of each example what becomes of it, in order: itself changed, or why it is left out."""
    found: list[Example | Problem] = []
    columns: set[str] = set()
    if any(change.kind == "template" for change in transforms):
        examples = list(examples)
        columns = {str(name) for example in examples for name in example.columns}
    for example in examples:
        made = example if example.kind == "replay" else _one(example, transforms, columns)
        if not isinstance(made, Example):
            field, why = made
            advice = "Correct the row, or take that change out of the profile or of data.transforms."
            made = Problem(example.row, field, why, advice, unit)
        found.append(made)
    return found


def _one(example: Example, transforms: Sequence[Transform], columns: set[str]) -> Example | tuple[str, str]:
    """The example changed; or (field, why it can't be)."""
    for change in transforms:
        try:
            example = _step(example, change, columns)
        except _Stuck as stuck:
            return stuck.field, f"{change.kind}: {stuck.why}"
    if example.rejected is not None and example.rejected == example.answer:
        return "rejected", "after the changes both answers are the same"
    return example


class _Stuck(Exception):
    def __init__(self, field: str, why: str):
        super().__init__(why)
        self.field, self.why = field, why


def _step(example: Example, change: Transform, columns: set[str]) -> Example:
    messages = [dict(message) for message in example.messages]
    if change.kind == "system":
        rest = [message for message in messages if message["role"] != "system"]
        return replace(example, messages=[{"role": "system", "content": change.text}, *rest])
    asked = [message for message in messages if message["role"] == "user"] if change.part in ("prompt", "both") else []
    said = [message for message in messages if message["role"] == "assistant"] if change.part in ("answer", "both") else []
    if change.kind == "template":
        # Only what is answered last: a conversation isn't put into the template again with each of its turns.
        asked, said = asked[-1:], said[-1:] if example.answered else []
    for message in asked:
        message["content"] = _text(message["content"], "prompt", example, change, columns)
    for message in said:
        message["content"] = _text(message["content"], "answer", example, change, columns)
    rejected = example.rejected
    if rejected is not None and change.part in ("answer", "both"):
        rejected = _text(rejected, "rejected", example, change, columns)
    return replace(example, messages=messages, rejected=rejected)


def _text(text: str, field: str, example: Example, change: Transform, columns: set[str]) -> str:
    try:
        made = _filled(text, example, change, columns) if change.kind == "template" else FUNCTIONS[change.kind](text, change)
    except LeftOut as error:
        raise _Stuck(field, str(error)) from error
    if not made.strip() and text.strip():
        raise _Stuck(field, "nothing is left of it")
    return made


def _filled(text: str, example: Example, change: Transform, columns: set[str]) -> str:
    def put(place: re.Match[str]) -> str:
        name = place[1]
        if name == change.part:
            return text
        if name not in columns:
            return place[0]
        if example.columns.get(name) in (None, ""):
            raise LeftOut(f"the row has no {name!r}, which the template asks for")
        value = example.columns[name]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACE.sub(put, change.text)


def _missing(examples: Sequence[Example], transforms: Sequence[Transform]) -> list[str]:
    """A place in a template that no row has a column for may be meant as it stands, or be a slip."""
    known = {str(name) for example in examples for name in example.columns}
    found = []
    for change in transforms:
        if change.kind == "template":
            for name in dict.fromkeys(_PLACE.findall(change.text)):
                if name != change.part and re.fullmatch(r"\w+", name) and name not in known:
                    found.append(f"no row has a column {name!r}: {{{name}}} stands in the template as it is")
    return found


def texts_of(example: Example) -> list[tuple[str, str]]:
    """[(what, text)]: what people compare of an example before and after."""
    found = [
        ({"user": "prompt", "assistant": "answer"}.get(message["role"], message["role"]), message["content"]) for message in _tail(example)
    ]
    return found + ([("rejected", example.rejected)] if example.rejected is not None else [])


def _tail(example: Example) -> list[Message]:
    return example.messages[-2:] if example.answered else example.messages[-1:]
