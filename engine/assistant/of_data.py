"""Replies about data: what there is to learn from, where files are added, what to do without any. Reads the library; adds nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine import knowledge
from engine.assistant import by_method
from engine.assistant.desk import Desk, State
from engine.assistant.reply import DEMO, Action, Choice, Reply

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning


def no_data(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What to do without data."""
    way = by_method.of(state)
    method, shape = knowledge.method(way), knowledge.shapes()[knowledge.shape(way)]
    collect = " ".join(shape["collect"].split())
    text = f"Then begin with a few: {method['needs'][0].lower()}{method['needs'][1:]} {collect} "
    text += "Meanwhile the example sets show how it goes." if way == "sft" else "Meanwhile a demo shows how it goes."
    choices = (*(by_method.to_try(state) or (DEMO,)), Choice("What should my data look like?", "What should my data look like?"))
    return Reply("no_data", text, choices, (Action("datasets", "Look at the example sets"),)), state


def data_sets(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What there is to learn from."""
    own, ships = desk.library.find(), desk.library.ships()
    text = (
        f"You have {len(own):,} data set{'s' * (len(own) != 1)} of your own, and {len(ships)} ship with Thinker."
        if own
        else (f"You have no data set of your own yet; {len(ships)} ship with Thinker, for trying.")
    )
    rows = tuple(
        {"data set": found.name, "examples": f"{found.examples:,}", "from": "Thinker" if found.ships else found.file}
        for found in [*own[:8], *ships]
    )
    choices = tuple(Choice(f"Use {found.name[:40]}", f"Use the data set {found.name}") for found in own[:3] if found.state != "unmapped")
    shown = [{"kind": "data", "id": found.id} for found in [*own[:8], *ships]]
    reply = Reply(meaning.intent, text, choices or (DEMO,), (Action("datasets", "Open Datasets"),), facts=rows)
    return reply, replace(state, shown=shown)


def upload(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Where files are added."""
    text = (
        "Drop it on the Datasets page: JSONL, JSON, CSV or Parquet. It says what is in it and what is wrong with it, row by row. Then "
        "come back and say: use my latest upload."
    )
    choices = (
        Choice("Use my latest upload", "Use my latest upload"),
        Choice("What should my data look like?", "What should my data look like?"),
    )
    return Reply("upload", text, choices, (Action("datasets", "Open Datasets"),)), replace(state, asked="data")
