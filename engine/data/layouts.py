"""How rows are laid out, under the names that people give their columns: what each layout is recognised by, and how a row is read.

To add one: a function, and an entry in `FORMATS`, the more particular before the more general. Knows nothing of how files are
stored nor of how examples are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.data.examples import Message, Shape
from engine.data.files import kind_of

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
_GOOD = frozenset(
    {"true", "1", "1.0", "+1", "yes", "y", "up", "good", "thumbs_up", "thumbs up", "positive", "liked", "like", "desirable", "👍"}
)
_BAD = frozenset({"false", "0", "0.0", "-1", "-1.0", "no", "n", "down", "bad", "thumbs_down", "thumbs down", "negative", "disliked"})
_BAD |= {"dislike", "undesirable", "👎"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Bad(Exception):
    """A row that can't be used: field, what is wrong, what to do."""


@dataclass(frozen=True)
class Told:
    """What a row says."""

    messages: list[Message]
    rejected: str | None = None
    good: bool | None = None


def _any(values: dict[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Format:
    """How one layout is recognised and read. `fields`: each standard field with the other names it goes by; `fits` looks at a row that
    has all of `required`; `kept` are fields whose columns rewards and curricula may want to read too."""

    shape: Shape
    fields: dict[str, tuple[str, ...]]
    required: tuple[str, ...]
    read: Callable[[dict[str, Any]], Told]
    fits: Callable[[dict[str, Any]], bool] = _any
    kept: tuple[str, ...] = field(default=())


def verdict(value: Any) -> bool | None:
    """Whether a label says good (True) or bad (False); None where it can't be told."""
    if isinstance(value, bool):
        return value
    said = str(value).strip().lower() if isinstance(value, str | int | float) else ""
    return True if said in _GOOD else False if said in _BAD else None


def _text(values: dict[str, Any], field: str, default: str | None = None) -> str:
    value = values.get(field, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Bad(field, f"the field is {kind_of(value)}, not text", 'Write it as text: "...".')
    return value


def _system(values: dict[str, Any]) -> list[Message]:
    text = _text(values, "system", "")
    return [{"role": "system", "content": text}] if text.strip() else []


def _led(values: dict[str, Any], messages: list[Message]) -> list[Message]:
    """The messages after the row's system message, unless they have one."""
    return messages if any(message["role"] == "system" for message in messages) else _system(values) + messages


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _listed(said: Any) -> bool:
    """Whether it is a list of messages, be it written as JSON."""
    return isinstance(said, list) or (isinstance(said, str) and said.lstrip().startswith(("[{", "[ {", "[\n")) and '"role"' in said)


def _messages(values: dict[str, Any], field: str = "messages") -> list[Message]:
    said = values[field]
    if isinstance(said, str) and said.lstrip().startswith("["):
        try:
            said = json.loads(said)
        except ValueError:
            raise Bad(field, "the text isn't a JSON list of messages", 'Write [{"role": "user", "content": ...}, ...].') from None
    if not isinstance(said, list):
        raise Bad(field, f"the field is {kind_of(said)}, not a list of messages", 'Write [{"role": "user", "content": ...}, ...].')
    if not said:
        raise Bad(field, "the list of messages is empty", "Give a user message and the assistant's answer.")
    return [_message(item, place, field) for place, item in enumerate(said, 1)]


def _message(item: Any, place: int, field: str) -> Message:
    if not isinstance(item, dict):
        raise Bad(field, f"message {place} is {kind_of(item)}, not an object", 'Write {"role": "user", "content": "..."}.')
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        what = f"has the unknown role {role!r}" if role is not None else "has no role"
        raise Bad(field, f"message {place} {what}", "Roles are system, user, assistant and tool.")
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if item.get("tool_calls"):
        fix = "Write the call out in its content, or take out the row."
        raise Bad(field, f"message {place} calls tools, which can't be learned from", fix)
    if not isinstance(content, str):
        what = "has no content" if content is None else f"has a content that is {kind_of(content)}, not text"
        raise Bad(field, f"message {place} {what}", 'Give each message "content": "...".')
    return {"role": ROLES[role.lower()], "content": content}


def _chat(values: dict[str, Any]) -> Told:
    return Told(_led(values, _messages(values)))


def _prompt_of(values: dict[str, Any]) -> list[Message]:
    """A prompt that is a text, a list of messages, or a transcript."""
    said = values["prompt"]
    if _listed(said):
        return _messages(values, "prompt")
    text = _text(values, "prompt")
    return _transcript(text, "prompt") if text.startswith("\n\nHuman:") else [{"role": "user", "content": text}]


def _prompt_completion(values: dict[str, Any]) -> Told:
    # Conversational prompt/completion rows hold lists of messages instead of texts.
    asked = _messages(values, "prompt") if isinstance(values["prompt"], list) else [{"role": "user", "content": _text(values, "prompt")}]
    return Told(_led(values, asked + _answer(values, "completion")))


def _answer(values: dict[str, Any], field: str) -> list[Message]:
    """An answer that is a text, a message or a list of messages."""
    said = values[field]
    if isinstance(said, dict):
        return [_message(said, 1, field)]
    return _messages(values, field) if _listed(said) else [{"role": "assistant", "content": _text(values, field)}]


def _alpaca(values: dict[str, Any]) -> Told:
    messages = _system(values)
    history = values.get("history") or []
    if isinstance(history, str):
        try:
            history = json.loads(history)
        except ValueError:
            history = None
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Bad("history", "the history isn't a list of pairs", 'Write [["question", "answer"], ...].')
    for question, answer in history:
        if not isinstance(question, str) or not isinstance(answer, str):
            raise Bad("history", "a pair of the history isn't two texts", 'Write [["question", "answer"], ...].')
        messages += _exchange(question, answer)
    instruction, extra = _text(values, "instruction"), _text(values, "input", "")
    asked = "\n\n".join(part for part in (instruction, extra) if part.strip())
    return Told(messages + _exchange(asked, _text(values, "output")))


def _transcript(text: str, field: str) -> list[Message]:
    """The turns of "\\n\\nHuman: ... \\n\\nAssistant: ...", less an answer at the end that is still to come."""
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Bad(field, "the transcript doesn't begin with Human:", 'Write "\\n\\nHuman: ... \\n\\nAssistant: ...".')
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns = [(mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    if turns[-1] == ("Assistant", ""):
        turns.pop()
    return [{"role": ROLES["human" if who == "Human" else "assistant"], "content": said} for who, said in turns]


def _preference(values: dict[str, Any]) -> Told:
    given = _prompt_of(values) if values.get("prompt") not in (None, "", []) else []
    sides = []
    for side in ("chosen", "rejected"):
        said = values[side]
        if not given and isinstance(said, str) and not _listed(said):
            if not _TURN.search(said):
                raise Bad(
                    "prompt", "there is no prompt that these answers are to", "Give each row a prompt, or write both answers as chats."
                )
            turns = _transcript(said, side)
        else:
            turns = _answer(values, side)
        if not turns or turns[-1]["role"] != "assistant":
            raise Bad(side, "it doesn't end in the assistant's answer", "End it with the answer.")
        sides.append(turns)
    return _two_sided(values, given, *sides)


def _two_sided(values: dict[str, Any], given: list[Message], chosen: list[Message], rejected: list[Message]) -> Told:
    """One prompt and two answers, where the sides may hold the whole conversation or the answer alone."""
    prompts = [[*given, *side[:-1]] if len(side) == 1 else side[:-1] for side in (chosen, rejected)]
    if prompts[0] != prompts[1]:
        fix = "Both must be answers to the same messages: take out the row, or end the conversation where the two part."
        raise Bad("rejected", "the two answers are to different conversations", fix)
    if chosen[-1]["content"].strip() == rejected[-1]["content"].strip():
        raise Bad("rejected", "the worse answer is the same as the better one", "Change one of them, or take out the row.")
    return Told(_led(values, [*prompts[0], chosen[-1]]), rejected=rejected[-1]["content"])


def _openai_preference(values: dict[str, Any]) -> Told:
    asked = values["input"]
    if isinstance(asked, dict):
        asked = asked.get("messages")
    given = _messages({"input": asked}, "input")
    return _two_sided(values, given, _answer(values, "preferred_output"), _answer(values, "non_preferred_output"))


def _rejected_message(values: dict[str, Any]) -> Told:
    messages = _messages(values)
    worse = _answer(values, "rejected_message")
    if messages[-1]["role"] != "assistant":
        raise Bad("messages", "the last message is no answer that could be better", "End the conversation with the better answer.")
    return _two_sided(values, messages[:-1], messages[-1:], worse[-1:])


def _labelled(read: Callable[[dict[str, Any]], Told]) -> Callable[[dict[str, Any]], Told]:
    def labelled(values: dict[str, Any]) -> Told:
        good = verdict(values["label"])
        if good is None:
            shown = repr(values["label"])[:40]
            raise Bad("label", f"the label {shown} says neither good nor bad", "Write true or false, 1 or 0, up or down, good or bad.")
        return Told(read(values).messages, good=good)

    return labelled


def _is_labelled(values: dict[str, Any]) -> bool:
    return verdict(values["label"]) is not None


def _ends(*roles: str) -> Callable[[dict[str, Any]], bool]:
    """Whether the last message is one of theirs."""

    def ends(values: dict[str, Any]) -> bool:
        try:
            return _messages(values)[-1]["role"] in roles
        except Bad:
            return False

    return ends


def _prompt(values: dict[str, Any]) -> Told:
    return Told(_led(values, _expecting(values, _prompt_of(values))))


def _prompt_chat(values: dict[str, Any]) -> Told:
    return Told(_led(values, _expecting(values, _messages(values))))


def _expecting(values: dict[str, Any], messages: list[Message]) -> list[Message]:
    """The prompt, and as its answer what the row expects, if it says so in words or a number."""
    expected = values.get("answer")
    if messages[-1]["role"] == "assistant" or expected is None:
        return messages
    if isinstance(expected, dict | list):
        said = _spoken(expected)
        return [*messages, said] if said else messages
    text = expected if isinstance(expected, str) else json.dumps(expected, default=str)
    return [*messages, {"role": "assistant", "content": text}] if text.strip() else messages


def _spoken(expected: Any) -> Message | None:
    """The one message that a structure is, where it is one; anything else is for rewards to read."""
    items = expected if isinstance(expected, list) else [expected]
    if len(items) == 1 and isinstance(items[0], dict) and items[0].get("role") == "assistant":
        return _message(items[0], 1, "answer")
    return None


def _written(field: str) -> Callable[[dict[str, Any]], bool]:
    """Whether the field is an answer in words: a bare number, or a structure, is what is expected of a prompt."""

    def written(values: dict[str, Any]) -> bool:
        said = values[field]
        first = said[0] if isinstance(said, list) and said else said
        return bool(said.strip()) if isinstance(said, str) else isinstance(first, dict) and bool({"role", "from"} & set(first))

    return written


_ASKED = ("question", "query", "user", "input", "instruction", "problem")
_ANSWERED = ("answer", "response", "output", "assistant", "target")
_EXPECTED = ("reference_answer", "expected", "expected_answer", "ground_truth", "solution", "reference", "target", "gold")
_CHAT = {"messages": ("conversations", "conversation", "chat"), "system": ("system_prompt",)}
_VERDICT = {"label": ("good", "thumbs", "thumb", "verdict", "desirable", "is_good")}

FORMATS = {
    "openai_preference": Format(
        "pairs",
        {"input": (), "preferred_output": (), "non_preferred_output": (), "system": ("system_prompt",)},
        ("input", "preferred_output", "non_preferred_output"),
        _openai_preference,
    ),
    "rejected_message": Format("pairs", {**_CHAT, "rejected_message": ("rejected",)}, ("messages", "rejected_message"), _rejected_message),
    "preference": Format(
        "pairs",
        {
            "prompt": _ASKED,
            "chosen": ("preferred", "better", "chosen_response", "accepted", "good_answer"),
            "rejected": ("dispreferred", "worse", "rejected_response", "declined", "bad_answer"),
            "system": ("system_prompt",),
        },
        ("chosen", "rejected"),
        _preference,
    ),
    "labelled_messages": Format("labels", {**_CHAT, **_VERDICT}, ("messages", "label"), _labelled(_chat), _is_labelled),
    "labelled": Format(
        "labels",
        {"prompt": _ASKED, "completion": _ANSWERED, **_VERDICT, "system": ("system_prompt",)},
        ("prompt", "completion", "label"),
        _labelled(_prompt_completion),
        _is_labelled,
    ),
    "messages": Format("answers", _CHAT, ("messages",), _chat, _ends("assistant")),
    "alpaca": Format(
        "answers",
        {"instruction": (), "input": (), "output": ("response",), "system": ("system_prompt",), "history": ()},
        ("instruction", "output"),
        _alpaca,
    ),
    "prompt_completion": Format(
        "answers",
        {"prompt": _ASKED, "completion": _ANSWERED, "system": ("system_prompt",)},
        ("prompt", "completion"),
        _prompt_completion,
        _written("completion"),
    ),
    "prompt_messages": Format(
        "prompts", {**_CHAT, "answer": _EXPECTED}, ("messages",), _prompt_chat, _ends("user", "tool"), kept=("answer",)
    ),
    "prompt": Format(
        "prompts",
        {"prompt": _ASKED, "answer": (*_EXPECTED, *_ANSWERED, "completion"), "system": ("system_prompt",)},
        ("prompt",),
        _prompt,
        kept=("answer",),
    ),
}
"""Every layout by name, the more particular first: of two that fit as well, the first is taken."""
