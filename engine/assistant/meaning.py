"""What a sentence asks for, by rules: the first that fits decides. Knows words, not the person's runs or data (their names are given).

Rules read text as `wording.plain` writes it. A text that none fits is read again with slips of the finger mended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from engine import knowledge
from engine.assistant import rules, settings_said, topics, ways, wishes
from engine.assistant.wording import mended, plain

# A longer text that only happens to name a term isn't about it.
_SHORT = 8
_RUN_BY_ID = re.compile(r"\brun ([0-9a-f]{12})\b")
_GIVES_WAY = ("correcting", "compare", "best_model", "upload", "again", "chat")
"""Readings of a sentence that a wish for a way of training comes before."""
_ASKS_FOR = re.compile(r"^how (?:do|can|could|would|to)\b|\bis it possible\b|^do (?!you |i |we |they |my |the |its |these |those )[^?]*$")
_WITH_EXACTLY = re.compile(r"(.+?) with the data set (.+)$")
_WHAT_IS = re.compile(r"(?:what (?:is|are)|what does|explain|define) (?:(?:an?|the) )?(.+?)(?: means?)?(?: \?)?$")
_USE_EXACTLY = re.compile(r"use the data set (.+)$")


@dataclass(frozen=True)
class Names:
    """What the person's own things are called: plain name to id. `models`: base models on this machine; `tuned`: what was trained."""

    datasets: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    tuned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Meaning:
    """`side`: too high or too low. `latest`: the newest upload. `changes`: of a recipe, as said. `nudges`: {field: factor}.

    `method`: a way of training that is wished for; `trial`: to be seen on examples that ship; `first`: with or without examples before;
    `score`: (kind of reward, a part of that kind, empty where it takes more than a sentence); `teaching`: what is said of a teacher.
    `things`: the runs and models that are named, in order, each as (run, model) where one name may stand for both; `run` is the first run.
    """

    intent: str
    goal: str = ""
    demo: str = ""
    topics: tuple[str, ...] = ()
    side: str = ""
    rows: int | None = None
    dataset: str = ""
    latest: bool = False
    run: str = ""
    things: tuple[tuple[str, str], ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    nudges: dict[str, float] = field(default_factory=dict)
    limit: str = ""
    method: str = ""
    trial: bool = False
    first: bool | None = None
    score: tuple[str, dict[str, Any]] | None = None
    teaching: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    said: str = ""

    @property
    def plans(self) -> bool:
        """Whether it says something of a run to come."""
        return bool(self.goal or self.dataset or self.latest or self.changes or self.nudges)


def read(said: str, names: Names | None = None) -> Meaning:
    """Never raises; `unknown` for what isn't understood."""
    names = names or Names()
    text = plain(said)
    found = _read(text, said, names)
    if found.intent in ("unknown", "unknown_term") and (better := mended(text, _vocabulary())) != text:
        again = _read(better, said, names)
        if again.intent != "unknown":
            return again
    return found


def _read(text: str, said: str, names: Names) -> Meaning:
    if not text.strip(" ?"):
        return Meaning("unknown" if said.strip(" ?\t\r\n") else "empty")
    rest = rules.GREETING.sub("", text).strip()
    if rest != text and (not rest.strip(" ?") or rules.NOBODY.fullmatch(rest)):
        return Meaning("greeting", text=text)
    text = rest or text
    if (exact := _WITH_EXACTLY.match(text)) and exact[2] in names.datasets:
        method = ways.method(exact[1])
        goal = ways.goal_of(method) if method else wishes.goal(exact[1])[0] or "answer"
        return Meaning("use_data", text=text, dataset=names.datasets[exact[2]], method=method or "sft", goal=goal)
    if (exact := _USE_EXACTLY.match(text)) and exact[1] in names.datasets:
        # Whatever else the name may seem to say.
        return Meaning("use_data", text=text, dataset=names.datasets[exact[1]])
    if (gone := _RUN_BY_ID.search(text)) and gone[1] not in names.runs:
        return Meaning("no_such_run", text=text)
    things, left = _things(text, names)
    run = next((run for run, _ in things if run), "")
    about = Meaning("", text=text, said=said, topics=topics.found(left), run=run, things=things)
    named = re.search(r"\b(?:call|name) it (.+)$", text)
    changes, nudges = settings_said.changes(left, said, names.models)
    about = replace(about, changes=changes, nudges=nudges)
    unnamed = text[: named.start()] if named else text
    intent = _intent(unnamed, about, names)
    if intent.intent == "unknown" and rest != text:
        return Meaning("greeting", text=text)
    return intent


def _intent(text: str, about: Meaning, names: Names) -> Meaning:
    question = bool(rules.QUESTION.search(text))
    if about.things and rules.COMPARES.search(text):
        return replace(about, intent="compare")
    if about.things and rules.TALKS_TO.search(text):
        return replace(about, intent="chat")
    if about.things and rules.CORRECTS.search(re.sub(f"{rules.THING}+", "it", _things(text, names)[1])):
        return replace(about, intent="correcting")
    if (asked := _WHAT_IS.match(text)) and about.topics and topics.alone(asked[1]):
        return replace(about, intent="explain")
    way = _way(text, about, names, question)
    if _goes_on(text, about, names) and not (way and way.method == "distill"):
        planned = way or _planned(text, about, names, False)
        return replace(planned or about, intent="further")
    for name, pattern in rules.FIRST:
        if pattern.search(text) and not (way and name in _GIVES_WAY):
            return replace(about, intent=name)
    if way and not (len(about.topics) > 1 and rules.BETWEEN.search(text)):
        return way
    if about.topics and (side := wishes.side(text)) and (question or "too" in text.split() or rules.TROUBLE.search(text)):
        return replace(about, intent="trouble", side=side)
    if len(about.topics) > 1 and rules.BETWEEN.search(text):
        return replace(about, intent="between")
    if any(topics.field(term) for term in about.topics) and rules.GOOD_VALUE.search(text):
        return replace(about, intent="good_value")
    limit = wishes.limit(text)
    wish = rules.WISH.search(text)
    missing = [term for term in about.topics if topics.unavailable(term)]
    if missing and (wish or not question) and not topics.alone(text):
        return replace(about, intent="limit", limit="method", topics=tuple(missing))
    if limit and limit != "net" and (wish or not question):
        return replace(about, intent="limit", limit=limit)
    asks = question and not rules.CAN_YOU.search(text)
    planned = None if about.run and question else _planned(text, about, names, asks)
    if planned and planned.intent == "use_data":
        return planned
    for name, pattern in rules.THEN:
        if pattern.search(text):
            return replace(about, intent=name)
    if planned and (wish or not asks):
        return planned
    for name, pattern in rules.LAST:
        if pattern.search(text):
            # A model of no run, or of another name than its run, is asked about itself.
            of_model = about.things and not about.run and name in ("status", "progress")
            return replace(about, intent="model" if of_model else name)
    if limit and not (about.topics and question):
        return replace(about, intent="limit", limit=limit)
    if about.topics and (question or rules.EXPLAIN.search(text) or len(text.split()) <= _SHORT):
        return replace(about, intent="explain")
    if planned:
        return planned
    if (first := ways.first(text)) is not None:
        return replace(about, intent="change", first=first)
    if about.things:
        return replace(about, intent="status" if about.run else "model")
    return replace(about, intent="unknown_term" if rules.EXPLAIN.search(text) else "unknown")


def _way(text: str, about: Meaning, names: Names, question: bool) -> Meaning | None:
    """The wish for a way of training; None where one is only spoken of."""
    # What runs and models are called says nothing of what is wished for.
    text = _without(_things(text, names)[1], names.datasets, _named(text, names.datasets))
    method = "distill" if ways.gives_prompt(about.said) and not question else ways.method(text)
    if not method or (question and not rules.CAN_YOU.search(text) and not _ASKS_FOR.search(text)) or ways.OF_A_RUN.search(text):
        return None
    teaching = ways.teacher(about.said) if method == "distill" else {}
    score = ways.score(text) if method == "rl" else ("", {})
    goal, demo = wishes.goal(text)
    wished = rules.WISH.search(text) or ways.WISHES.search(text) or goal == "demo" or teaching or score[0] or ways.first(text) is not None
    limit = wishes.limit(text)
    if not wished or limit in ("images", "place", "export") or (limit == "closed" and method not in ("distill", "rl")):
        return None
    planned = replace(_planned(text, about, names, False) or about, method=method, goal=ways.goal_of(method), rows=wishes.rows(text))
    demo = demo if goal == "demo" and wishes.names_demo(text) else ""
    said = {"trial": goal == "demo", "demo": demo, "first": ways.first(text), "teaching": teaching, "score": score if score[0] else None}
    return replace(planned, intent=planned.intent if planned.intent == "use_data" else "goal", **said)


def _goes_on(text: str, about: Meaning, names: Names) -> bool:
    """Whether it asks to train a model further."""
    if any(model for _, model in about.things):
        uses = rules.USES_IT.match(_things(text, names)[1]) and not _named(text, names.datasets)
        return bool(uses or rules.FURTHER.search(text))
    return bool(rules.FURTHER_UNNAMED.search(text) or (about.things and "further" in text.split()))


def _planned(text: str, about: Meaning, names: Names, asks: bool) -> Meaning | None:
    """The same with what it says of a run to come; None where it says nothing of one."""
    dataset = _named(text, names.datasets)
    goal, demo = wishes.goal(_without(text, names.datasets, dataset))
    uses = rules.USE_DATA.search(text) or (text == next((name for name, one in names.datasets.items() if one == dataset), None))
    latest = bool(rules.LATEST.search(text)) and not dataset
    filled = replace(about, goal=goal, demo=demo, rows=wishes.rows(text), dataset=dataset if uses else "", latest=latest)
    if filled.dataset or latest:
        return None if asks else replace(filled, intent="use_data")
    if goal:
        return replace(filled, intent="goal")
    if (about.changes or about.nudges) and not asks:
        return replace(filled, intent="change")
    return None


def _things(text: str, names: Names) -> tuple[tuple[tuple[str, str], ...], str]:
    """((run, model) for each that is named, in order; the text without their names). Of names within names, the longest counts."""
    places: dict[int, tuple[str, str]] = {}
    left = text
    for name in sorted({*names.runs, *names.tuned}, key=len, reverse=True):
        if len(name) > 2 and (match := re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)):
            places[match.start()] = (names.runs.get(name, ""), names.tuned.get(name, ""))
            text = text[: match.start()] + "\0" * len(name) + text[match.end() :]
            # A run may be called after a term, which then can be asked about all the same.
            if not topics.alone(name):
                left = left[: match.start()] + rules.THING * len(name) + left[match.end() :]
    return tuple(places[place] for place in sorted(places)), left


def _named(text: str, names: Mapping[str, str]) -> str:
    """The id of what is called by its name or id in the text, the longest name first."""
    ids = set(names.values())
    for word in re.findall(r"(?<!\w)[0-9a-f]{12}(?!\w)", text):
        if word in ids:
            return word
    for name in sorted(names, key=len, reverse=True):
        if len(name) > 2 and name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            return names[name]
    return ""


def _without(text: str, names: Mapping[str, str], meant: str) -> str:
    """The text without the name of what is meant, unless that is all it says of its subject."""
    name = next((name for name in sorted(names, key=len, reverse=True) if meant and names[name] == meant and name in text), "")
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", rules.THING, text) if name and not topics.alone(name) else text


@cache
def _vocabulary() -> frozenset[str]:
    families = {str(model["family"]) for model in knowledge.base_models().values()}
    return topics.vocabulary() | rules.vocabulary() | families | frozenset(knowledge.demos())
