"""Rows to examples: chat messages, prompt/completion and Alpaca, under the names that people give their columns.

A row that can't be used becomes a Problem, never a silence. To add a format: a function, and an entry in `FORMATS`.
Knows nothing of how files are stored nor of how examples are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.examples import Example, Message, Problem, Report
from engine.data.files import kind_of, read_rows, unit
from engine.errors import DataError

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
_SAMPLE_ROWS = 50


class _Bad(Exception):
    """A row that can't be used: field, what is wrong, what to do."""


@dataclass(frozen=True)
class Format:
    """How one layout is recognised and read. `fields`: each standard field with the other names it goes by."""

    fields: dict[str, tuple[str, ...]]
    required: tuple[str, ...]
    read: Callable[[dict[str, Any]], list[Message]]


def read_examples(path: str | Path, format: str = "auto", mapping: dict[str, str] | None = None) -> Report:
    """All examples in a file and a Problem for every other row.

    `mapping` gives your column for a standard field: {"prompt": "Question"}. Raises DataError where the file as a whole can't
    be read, or holds no usable row.
    """
    path = Path(path).expanduser()
    if format != "auto" and format not in FORMATS:
        raise DataError(f"there is no format called {format!r}", f"Choose one of: auto, {', '.join(FORMATS)}.", where="format")
    rows: list[tuple[int, dict[str, Any]]] = []
    problems: list[Problem] = []
    total = 0
    for number, row in read_rows(path):
        total += 1
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rows.append((number, row))
    if not rows:
        _nothing_usable(path, problems)
    name, columns = _recognise([row for _, row in rows[:_SAMPLE_ROWS]], format, mapping or {}, path)
    examples = []
    for number, row in rows:
        try:
            examples.append(Example(_read(row, name, columns), number, "replay" if row.get("kind") == "replay" else "task"))
        except _Bad as bad:
            field, message, fix = bad.args
            problems.append(Problem(number, columns.get(field, field), message, fix, unit(path)))
    problems.sort(key=lambda problem: problem.row)
    if not examples:
        _nothing_usable(path, problems)
    stats = {
        "rows": total,
        "examples": len(examples),
        "problems": len(problems),
        "replay": sum(example.kind == "replay" for example in examples),
        "answers": sum(message["role"] == "assistant" for example in examples for message in example.messages),
        "characters": sum(len(message["content"]) for example in examples for message in example.messages),
        "repeated_prompts": len(examples) - len({tuple(example.prompts())[-1] for example in examples}),
    }
    return Report(name, examples, problems, stats, columns)


def _nothing_usable(path: Path, problems: list[Problem]) -> None:
    if not problems:
        raise DataError("the file holds no rows", "Give a file with at least one example.", where=str(path))
    first = problems[0]
    count = f"none of the {len(problems)} rows can be used; the first: " if len(problems) > 1 else ""
    raise DataError(count + first.message, first.fix, where=f"{path}, {first.place}")


def _recognise(rows: list[dict[str, Any]], format: str, mapping: dict[str, str], path: Path) -> tuple[str, dict[str, str]]:
    """The format and the column to read for each of its fields."""
    candidates = FORMATS if format == "auto" else {format: FORMATS[format]}
    known = {field for layout in candidates.values() for field in layout.fields}
    if unknown := sorted(set(mapping) - known):
        raise DataError(f"{unknown[0]!r} isn't a standard field", f"Map one of: {', '.join(sorted(known))}.", where="mapping")
    seen = dict.fromkeys(name for row in rows for name in row)
    absent = next((column for column in mapping.values() if column not in seen), None)
    if absent is not None:
        fix = f"Its columns are: {', '.join(map(str, seen))}."
        raise DataError(f"the mapping names a column {absent!r} that the file doesn't have", fix, where=str(path))
    best: tuple[int, str, dict[str, str]] | None = None
    for name, layout in candidates.items():
        if not set(mapping) <= set(layout.fields):
            continue
        columns = {}
        for field, aliases in layout.fields.items():
            options = [mapping[field]] if field in mapping else [field, *aliases]
            column = _column(options, rows)
            if column and column not in columns.values():
                columns[field] = column
        fitting = sum(all(columns.get(field) in row for field in layout.required) for row in rows)
        if fitting and (best is None or fitting > best[0]):
            best = (fitting, name, columns)
    if best:
        return best[1], best[2]
    if format != "auto":
        needed = " and ".join(FORMATS[format].required)
        fix = f"The columns are: {', '.join(map(str, seen))}. Say which is which with a mapping, or choose another format."
        raise DataError(f"no row has the fields of the format {format}: {needed}", fix, where=str(path))
    raise DataError(
        f"can't tell how the rows are laid out; their fields are: {', '.join(map(str, seen)) or '(none)'}",
        "Name the columns prompt and completion, or map yours to them.",
        where=str(path),
    )


def _column(options: list[str], rows: list[dict[str, Any]]) -> str | None:
    """The first of the names that the rows use, exactly or but for case."""
    seen = dict.fromkeys(name for row in rows for name in row)
    for option in options:
        for name in seen:
            if str(name).strip().lower() == option.lower():
                return name
    return None


def _read(row: dict[str, Any], name: str, columns: dict[str, str]) -> list[Message]:
    layout = FORMATS[name]
    values = {field: row[column] for field, column in columns.items() if column in row}
    for field in layout.required:
        if field not in values:
            raise _Bad(field, "the field is missing", f"Give each row {' and '.join(layout.required)}.")
    messages = layout.read(values)
    for message in messages:
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            raise _Bad("", "the text holds half a character (a lone surrogate)", "Take out the broken \\ud8.. escape.") from None
    if messages[-1]["role"] != "assistant":
        fix = "End the conversation with the assistant's answer."
        raise _Bad(layout.required[-1], f"the last message is the {messages[-1]['role']}'s, so there is no answer to learn", fix)
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if answers[0] == 0:
        raise _Bad(layout.required[-1], "the conversation starts with an answer", "Put a user message before it.")
    for place, message in enumerate(messages):
        if not message["content"].strip():
            what = {"assistant": "answer", "user": "prompt"}.get(message["role"], f"{message['role']} message")
            field = layout.required[-1 if message["role"] == "assistant" else 0]
            which = f" (message {place + 1})" if name == "messages" else ""
            raise _Bad(field, f"the {what} is empty{which}", "Fill it in or take out the row.")
    return messages


def _text(values: dict[str, Any], field: str, default: str | None = None) -> str:
    value = values.get(field, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _Bad(field, f"the field is {kind_of(value)}, not text", 'Write it as text: "...".')
    return value


def _system(values: dict[str, Any]) -> list[Message]:
    text = _text(values, "system", "")
    return [{"role": "system", "content": text}] if text.strip() else []


def _pair(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _messages(values: dict[str, Any], field: str = "messages") -> list[Message]:
    said = values[field]
    if isinstance(said, str) and said.lstrip().startswith("["):
        try:
            said = json.loads(said)
        except ValueError:
            raise _Bad(field, "the text isn't a JSON list of messages", 'Write [{"role": "user", "content": ...}, ...].') from None
    if not isinstance(said, list):
        raise _Bad(field, f"the field is {kind_of(said)}, not a list of messages", 'Write [{"role": "user", "content": ...}, ...].')
    if not said:
        raise _Bad(field, "the list of messages is empty", "Give a user message and the assistant's answer.")
    messages = [_message(item, place, field) for place, item in enumerate(said, 1)]
    return messages if any(message["role"] == "system" for message in messages) else _system(values) + messages


def _message(item: Any, place: int, field: str) -> Message:
    if not isinstance(item, dict):
        raise _Bad(field, f"message {place} is {kind_of(item)}, not an object", 'Write {"role": "user", "content": "..."}.')
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        what = f"has the unknown role {role!r}" if role is not None else "has no role"
        raise _Bad(field, f"message {place} {what}", "Roles are system, user, assistant and tool.")
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if item.get("tool_calls"):
        fix = "Write the call out in its content, or take out the row."
        raise _Bad(field, f"message {place} calls tools, which can't be learned from", fix)
    if not isinstance(content, str):
        what = "has no content" if content is None else f"has a content that is {kind_of(content)}, not text"
        raise _Bad(field, f"message {place} {what}", 'Give each message "content": "...".')
    return {"role": ROLES[role.lower()], "content": content}


def _prompt_completion(values: dict[str, Any]) -> list[Message]:
    # Conversational prompt/completion rows hold lists of messages instead of texts.
    sides = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        listed = isinstance(values[field], list)
        sides += _messages(values, field) if listed else [{"role": role, "content": _text(values, field)}]
    return sides if any(message["role"] == "system" for message in sides) else _system(values) + sides


def _alpaca(values: dict[str, Any]) -> list[Message]:
    messages = _system(values)
    history = values.get("history") or []
    if isinstance(history, str):
        try:
            history = json.loads(history)
        except ValueError:
            history = None
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise _Bad("history", "the history isn't a list of pairs", 'Write [["question", "answer"], ...].')
    for question, answer in history:
        if not isinstance(question, str) or not isinstance(answer, str):
            raise _Bad("history", "a pair of the history isn't two texts", 'Write [["question", "answer"], ...].')
        messages += _pair(question, answer)
    instruction, extra = _text(values, "instruction"), _text(values, "input", "")
    return messages + _pair("\n\n".join(part for part in (instruction, extra) if part.strip()), _text(values, "output"))


FORMATS = {
    "messages": Format({"messages": ("conversations", "conversation", "chat"), "system": ("system_prompt",)}, ("messages",), _messages),
    "alpaca": Format(
        {"instruction": (), "input": (), "output": ("response",), "system": ("system_prompt",), "history": ()},
        ("instruction", "output"),
        _alpaca,
    ),
    "prompt_completion": Format(
        {
            "prompt": ("question", "query", "user", "input", "instruction"),
            "completion": ("answer", "response", "output", "assistant", "target"),
            "system": ("system_prompt",),
        },
        ("prompt", "completion"),
        _prompt_completion,
    ),
}
