"""Questions for what a training still lacks: a goal, data, a model; each with what there is to choose from. Decides nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import data, knowledge, paths, system
from engine.amounts import size
from engine.assistant import by_method, ways
from engine.assistant.desk import Desk, State
from engine.assistant.explaining import suited
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.wording import safe

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning


def goal(state: State, meaning: Meaning) -> tuple[Reply, State]:
    """What should it learn?"""
    noted = "Noted. " if meaning.changes and meaning.intent == "change" else ""
    return Reply(meaning.intent, f"{noted}What should the model learn?", goals()), replace(state, asked="goal")


def goals() -> tuple[Choice, ...]:
    """Every goal; its own title is always understood."""
    return tuple(Choice(known["title"], ways.said_as(name)) for name, known in knowledge.goals().items())


def rows(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    """What data should it learn from? Only such is offered as the way of training can learn from."""
    known = knowledge.goals().get(state.goal or "answer") or knowledge.goals()["answer"]
    method = by_method.of(state)
    parts = [note]
    if state.wish:
        parts.append(
            "A model can learn that from examples. "
            if state.goal != "review"
            else "I can't mend code myself, but a model can learn to review it. "
        )
    if method != "sft":
        about = knowledge.method(method)
        parts.append(f"**{about['title']}: {about['term']}.** {about['meaning']} ")
    parts.append(f"It needs: {known['data'][0].lower()}{known['data'][1:]} For example: {_like(known['row'])}.")
    if state.rows is not None:
        parts.append(f" {_enough(state.rows, method)}")
    own, others = by_method.fitting(desk, method)
    choices = [Choice(f"Use {found.name[:40]} ({found.examples:,})", f"Use the data set {found.name}") for found in own[:4]]
    if own:
        parts.append(" Which of your data sets should it learn from?")
    else:
        parts.append(_none_fits(desk, method, others))
        choices.append(Choice("I have added it", "Use my latest upload"))
    if state.goal == "review":
        choices.append(Choice("Try the small code review that ships", "Teach it to find bugs"))
    elif shown := by_method.to_try(state):
        choices += shown
    elif not own:
        choices.append(DEMO)
    choices.append(Choice("I have no data", "I have no data"))
    return Reply(intent, "".join(parts), tuple(choices), (Action("datasets", "Add a file"),)), replace(state, asked="data", proposed=False)


def model(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    """Which model should learn it? One that was trained comes first, where what it can do is to be made better."""
    free = system.probe(paths.home()).memory_free
    own = [found for found in desk.registry.find() if found.weights_path][:2] if by_method.of(state) in by_method.IMPROVES else []
    choices = [Choice(f"Go on from {found.name[:40]}", f"Start from {found.name}") for found in own]
    choices.append(Choice("nano: seconds, but knows little", "Use nano"))
    here = [name for name in desk.library.base_models() if name != "nano" and desk.may_use(name)]
    choices += [Choice(f"{name.rpartition('/')[2] or name} (here already)", f"Use {name}") for name in here[:2]]
    known = knowledge.base_models()
    for name in [name for name in suited(desk, free) if name not in here][:2]:
        choices.append(Choice(f"{name.rpartition('/')[2]} ({size(4 * known[name]['parameters'])} in memory, is downloaded)", f"Use {name}"))
    better = "This improves what a model can do already, so one that you trained is the best start. " if own else ""
    text = (
        f"{note}Which model should learn it? {better}nano trains in seconds on this machine and knows letters and little else: good to see "
        f"how your data does, not for real answers. {size(free)} of memory are free; the others that I name fit."
    )
    return Reply(intent, text, tuple(choices)), replace(state, asked="model", proposed=False)


def others(desk: Desk) -> list[str]:
    """Base models beside nano."""
    return [name for name in [*desk.library.base_models(), *knowledge.base_models()] if name != "nano"]


def _none_fits(desk: Desk, method: str, others: list[Any]) -> str:
    """What to do where no data set of theirs will do."""
    shapes, needed = knowledge.shapes(), knowledge.shapes()[knowledge.shape(method)]
    said = ""
    if others:
        said = f" Of your data sets none holds {needed['title']}: **{safe(others[0].name)}** holds {shapes[others[0].shape]['title']}."
    counts = desk.store.count_ratings(desk.owner)
    if "labels" in data.SERVES[knowledge.shape(method)] and method != "sft" and any(counts.values()):
        return (
            f"{said} You gave {counts[True]:,} thumbs up and {counts[False]:,} down in chats: the Datasets page makes a data set of them."
        )
    return f"{said} Add your examples on the Datasets page, then come back here."


def _like(row: dict[str, Any]) -> str:
    """What a row of such data looks like."""
    asked = f"“{safe(row['prompt'])}”"
    if "chosen" in row:
        return f"{asked} → better “{safe(row['chosen'])}”, worse “{safe(row['rejected'])}”"
    if "label" in row:
        return f"{asked} → “{safe(row['completion'])}”, found {'good' if row['label'] else 'bad'}"
    answer = row.get("completion") or row.get("answer")
    return f"{asked} → “{safe(answer)}”" if answer else asked


def _enough(count: int, method: str) -> str:
    if count < 50:
        return f"{count:,} are few: fewer than 50 seldom teach more than themselves."
    told = knowledge.steps_for(count, 32)
    if method != "sft":
        return f"{count:,} are {'a good start' if count < 5000 else 'plenty'}: about {told['value']:,} steps of 32."
    needs = knowledge.method("sft")["needs"]
    return (
        f"{count:,} are {'a good start' if count < 5000 else 'plenty'} ({needs.rpartition('; ')[2].rstrip('.')}): about {told['value']:,} "
        f"steps of 32."
    )
