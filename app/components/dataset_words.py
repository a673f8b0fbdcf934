"""A data set in words: its light, its layout, what its lengths mean. Pure but for Streamlit's Markdown marks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.components import words
from engine import knowledge
from engine.amounts import size

if TYPE_CHECKING:
    from engine.store import LibrarySet

FORMATS = {
    "prompt_completion": "Question and answer",
    "messages": "Chat messages",
    "alpaca": "Instruction, input, output",
    "preference": "A better and a worse answer",
    "rejected_message": "Chat and a worse last answer",
    "openai_preference": "OpenAI's preferences",
    "labelled": "Question, answer and thumb",
    "labelled_messages": "Chat and thumb",
    "prompt": "Prompt to be tried",
    "prompt_messages": "Chat without its last answer",
}
TERMS = {
    "prompt_completion": "prompt/completion",
    "messages": "messages",
    "alpaca": "Alpaca",
    "preference": "chosen/rejected",
    "rejected_message": "rejected_message",
    "openai_preference": "preferred_output/non_preferred_output",
    "labelled": "prompt/completion/label",
    "labelled_messages": "messages/label",
    "prompt": "prompt",
    "prompt_messages": "messages",
}
_FIELDS = {
    "prompt": "The question (prompt)",
    "completion": "The answer (completion)",
    "messages": "The conversation (messages)",
    "instruction": "The instruction",
    "input": "What it is applied to (input)",
    "output": "The answer (output)",
    "system": "The system message",
    "history": "Earlier turns (history)",
    "chosen": "The better answer (chosen)",
    "rejected": "The worse answer (rejected)",
    "rejected_message": "The worse last answer (rejected_message)",
    "preferred_output": "The better answer (preferred_output)",
    "non_preferred_output": "The worse answer (non_preferred_output)",
    "label": "Good or bad (label)",
    "answer": "What is expected (answer)",
}
_ROW_NAMES = {"answers": "example", "pairs": "pair", "labels": "answer", "prompts": "prompt"}
_ROLES = {"system": "System", "user": "User", "assistant": "Answer", "tool": "Tool"}


def row_name(shape: str) -> str:
    """What one of its rows is called."""
    return _ROW_NAMES[shape]


def shape_title(shape: str) -> str:
    """Pairs of a better and a worse answer."""
    title = knowledge.shapes()[shape]["title"]
    return title[0].upper() + title[1:]


def shape_meaning(shape: str) -> str:
    """What such rows say, in a sentence."""
    return knowledge.shapes()[shape]["meaning"]


def rows(count: int, what: str = "row") -> str:
    """1 row, 2,000 rows."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def light(found: LibrarySet) -> tuple[str, Any]:
    """(what its badge says, its colour)."""
    if found.state == "unmapped":
        return "● needs its columns", "orange"
    if found.state == "check":
        return f"● {rows(found.left_out)} can't be used", "orange"
    return ("● comes with Thinker", "blue") if found.ships else ("● ready", "green")


def facts(found: LibrarySet) -> str:
    """Half a line: how much, laid out how, how large, since when."""
    said = [rows(found.examples, row_name(found.shape))] if found.state != "unmapped" else []
    if found.format:
        said.append(layout(found.format))
    said.append(size(found.bytes))
    if found.left_out and found.state == "ready":
        said.append(f"{rows(found.left_out)} left out")
    if found.created_at:
        said.append(words.ago(time.time() - found.created_at))
    return " · ".join(said)


def layout(format: str) -> str:
    """question and answer (prompt/completion)."""
    name = FORMATS.get(format, format).lower()
    return f"{name} ({TERMS[format]})" if format in TERMS and TERMS[format] not in name else name


def field(name: str) -> str:
    """A standard field, for people."""
    return _FIELDS.get(name, name)


def role(name: str) -> str:
    """Who speaks."""
    return _ROLES.get(name, name)


def lines(text: str, limit: int = 1200) -> str:
    """Text of people for Markdown with its line ends and indents, cut to `limit` characters; nothing in it is markup."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    found = []
    for line in shown.split("\n"):
        bare = line.lstrip(" \t")
        found.append("\u00a0" * (len(line.expandtabs(4)) - len(bare.expandtabs(4))) + words.literal(bare))
    return "  \n".join(found)


def lengths_finding(known: dict[str, Any], model: str) -> str:
    """What the lengths say, in a sentence."""
    limit, over = known["limit"], known["over"]
    model = words.literal(model)
    if not known["tokens"]:
        return f"{model} can show none of these rows"
    if over:
        share = words.percent(over / known["measured"])
        lost = f"; of {known['unanswered']:,} no answer is left" if known["unanswered"] else ""
        return f"{share} of the rows are longer than the {limit:,} tokens that {model} can look at: their ends are cut off{lost}"
    return f"Every row fits: the longest has {known['longest']:,} of the {limit:,} tokens that {model} can look at"


def _of_shape(found: LibrarySet) -> list[tuple[str, str]]:
    stats, examples = found.stats, max(1, found.examples)
    said: list[tuple[str, str]] = []
    if found.shape == "pairs":
        share = stats["longer_chosen"] / examples
        what = f"The better one has {stats['answer_characters']['median']:,.0f} characters in the median, the worse one "
        what += f"{stats['rejected_median']:,.0f}."
        if not 0.3 <= share <= 0.7:
            what += (
                f" A model may learn no more than that {'long' if share > 0.5 else 'short'} answers are liked: add pairs of the other kind."
            )
        said.append((f"The better answer is the longer one in {words.percent(share)} of the pairs", what))
    elif found.shape == "labels":
        share = stats["good"] / examples
        what = "Good. Both are needed, neither far more often than the other."
        if not 0.2 <= share <= 0.8:
            what = "One side is rare: collect more of it, or give it more weight in the settings."
        said.append((f"{stats['good']:,} answers were found good, {stats['bad']:,} bad", what))
    elif found.shape == "prompts":
        what = "Answers that a model tries are judged by a reward: against what is expected, or by a rule, tests or a judge."
        said.append((f"{stats['expected']:,} of {rows(found.examples, 'prompt')} say what is expected", what))
    if names := stats.get("other_columns"):
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        what = f"They are kept beside the rows: {shown}. Rewards can judge by them, and a curriculum can go by one that is a number."
        said.append((rows(len(names), "further column"), what))
    return said


def remarks(found: LibrarySet, known: dict[str, Any]) -> list[tuple[str, str]]:
    """(what is so, what it means or what to do): what to know of a data set before training on it."""
    stats = found.stats
    said: list[tuple[str, str]] = []
    examples = found.examples
    said += _of_shape(found)
    if known["tokens"] and found.shape != "prompts":
        share = words.percent(known["learned"] / known["tokens"])
        said.append(
            (f"{share} of the tokens are learned from", "The answers. The rest is given: the model sees it, but isn't asked to write it.")
        )
    if stats.get("duplicates"):
        what = "They count once for each time in training. Take them out unless that is meant."
        said.append((f"{rows(stats['duplicates'])} repeat another row word for word", what))
    repeated = stats.get("repeated_prompts", 0) - stats.get("duplicates", 0)
    if repeated > 0:
        what = "Good where many answers are right; where one is, the model can't know which to give."
        said.append((f"{rows(repeated)} ask what another row asks, and answer otherwise", what))
    if stats.get("empty_answers"):
        said.append((f"{rows(stats['empty_answers'])} had an empty answer", "They are left out."))
    if stats.get("with_system"):
        what = "In all of them." if stats["with_system"] == examples else "The others get the recipe's system prompt, if it has one."
        said.append((f"{rows(stats['with_system'])} have a system message", what))
    if stats.get("replay"):
        what = "Tasks from before, mixed in so that they aren't forgotten (replay). They are never held out."
        said.append((f"{rows(stats['replay'])} keep older skills alive", what))
    more = stats.get("answers", 0) - examples
    if more > 0 and found.shape == "answers":
        said.append(
            (f"{stats['answers']:,} answers in {rows(examples, 'conversation')}", "Every answer of a conversation is learned from.")
        )
    if examples < 50 and not found.ships:
        said.append(
            (
                f"Only {rows(examples, row_name(found.shape))}",
                "A style may come through; for a task, bring a few hundred. 10 or more let some be held out.",
            )
        )
    return said
