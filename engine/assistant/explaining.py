"""Replies that explain: a term, one against another, what to do when a number is off, what is a good value, what this machine can do.

All of it is read from engine.knowledge, the recipe's own fields and the machine; where a run is talked of, its own figures stand beside.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine import abilities, estimates, knowledge, models
from engine.amounts import size
from engine.assistant import topics
from engine.assistant.desk import Desk, State, called
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.wording import figure, safe
from engine.errors import EngineError
from engine.recipe import fields

if TYPE_CHECKING:
    from engine.abilities import Abilities
    from engine.assistant.meaning import Meaning
    from engine.store import Job

_GUIDE = Action("guide", "Read on in the guide")
_BYTES = 4
_OF_DATA = ("how much data", "data format")


def term(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What a term means."""
    name = meaning.topics[0]
    entry = knowledge.terms()[name]
    text = f"**{entry['title']}.** {_meaning(entry)}"
    if (metric := entry.get("metric")) and (job := desk.job(state.run) or next(iter(desk.newest(limit=1)), None)):
        value = desk.last([job.id], [metric]).get(job.id, {}).get(metric)
        if value is not None:
            text += f"\n\nIn {called(job)} it is {figure(value)} now."
    if topics.unavailable(name):
        text += f"\n\nThinker can't train this way yet. {entry['instead']}"
    choices = _related(name)
    if entry.get("method") and (goal := _goal(entry["method"])):
        choices = (
            Choice(f"Do that: {goal[:1].lower()}{goal[1:]}", goal if entry["method"] != "sft" else "It should answer questions"),
            *choices,
        )
    # Of a way of training that is asked about together with data, its own rows are meant.
    ways = [known["method"] for other in meaning.topics[1:] if (known := knowledge.terms()[other]).get("method")]
    if name in _OF_DATA and ways:
        method, shape = knowledge.method(ways[0]), knowledge.shapes()[knowledge.shape(ways[0])]
        text = f"**{method['title']}: {method['term']}.** It needs: {method['needs']}\n\n"
        text += f"For example: `{json.dumps(shape['row'], ensure_ascii=False)}`"
        text += f" {' '.join(shape['collect'].split())}"
    return Reply("explain", text, choices, (_GUIDE,)), state


def between(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Two terms side by side."""
    shown = meaning.topics[:3]
    known = knowledge.terms()
    lines = []
    for name in shown:
        note = " *Thinker can't train this way yet.*" if topics.unavailable(name) else ""
        lines.append(f"- **{known[name]['title']}.** {_meaning(known[name], brief=True)}{note}")
    off = [name for name in shown if topics.unavailable(name)]
    if off and len(off) < len(shown):
        lines.append(f"\nToday: {next(known[name]['title'] for name in shown if name not in off)}. {known[off[0]]['instead']}")
    choices = tuple(Choice(f"More on {known[name]['title']}", f"What is {name}?") for name in shown)
    return Reply("between", "\n".join(lines), choices, (_GUIDE,)), state


def trouble(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What to do about a number that is too high or too low; the run's own setting is held against what is recommended."""
    name = meaning.topics[0]
    entry = knowledge.terms()[name]
    lines = [f"**{entry['title']}.**"]
    if (field := topics.field(name)) and (known := knowledge.effects().get(field)):
        first, second = ("high", "low") if meaning.side == "high" else ("low", "high")
        lines.append(f"Too {first}: {known[first]}. Too {second}: {known[second]}.")
    job = desk.job(meaning.run) or desk.job(state.run) or next(iter(desk.newest(limit=1)), None)
    if field == "training.learning_rate" and job and (said := _rate(desk, job)):
        lines.append(said)
    text = " ".join(lines)
    if metric := entry.get("metric"):
        flags = knowledge.metric(metric)["red_flags"]
        text += "\n\n" + "\n".join(f"- **{flag['sign']}** {flag['action']}" for flag in flags)
    elif entry.get("more"):
        text += f" {entry.get('meaning', '')} {entry['more']}"
    elif not knowledge.effects().get(field):
        text += f" {_meaning(entry)}"
    choices = (Choice("Is my run all right?", "Is my run ok?"), *_related(name)[:2])
    return Reply("trouble", text, choices, (_GUIDE,)), state


def good_value(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What to set a field to, and why."""
    name = next(term for term in meaning.topics if topics.field(term))
    path = topics.field(name)
    about = next(field for field in fields() if field["name"] == path)
    base_model = state.changes.get("base_model") or "nano"
    lines = [f"**{knowledge.terms()[name]['title']}.**"]
    if advice := _advice(desk, path, base_model, state):
        model = f" for {safe(base_model)}" if path == "training.learning_rate" else ""
        lines.append(f"**{_shown(advice['value'])}** is recommended{model}. {advice['reason']}")
    if about["healthy"]:
        low, high = (figure(bound) for bound in about["healthy"])
        lines.append(f"Usually {low} to {high}{' ' + about['unit'] if about['unit'] else ''}.")
    if not advice and not about["healthy"]:
        lines.append(f"The usual value is {_shown(about['default'])}.")
    if known := knowledge.effects().get(path):
        lines.append(f"Too high: {known['high']}. Too low: {known['low']}.")
    text = " ".join(lines) + (f"\n\n*Source: {advice['source']}*" if advice and advice.get("source") else "")
    return Reply("good_value", text, _related(name), (_GUIDE,)), state


def unknown_term(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A word that the knowledge doesn't hold."""
    text = "I don't know that term. I can explain the words of training: methods, settings, and what the numbers of a run mean."
    choices = tuple(Choice(f"What is {name}?", f"What is {name}?") for name in ("LoRA", "held-out loss", "learning rate", "overfitting"))
    return Reply("unknown_term", text, choices, (_GUIDE,)), state


def machine(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What this machine has, and what that is enough for."""
    able = abilities.look(desk.owner)
    found, gpu = able.machine, able.gpu
    lines = [
        f"This machine has {found.cpus} CPU cores, {size(found.memory_free)} of {size(found.memory_total)} memory free, "
        f"{size(found.disk_free)} of disk free, and {f'a GPU ({safe(gpu)})' if gpu else 'no GPU that I can find'}."
    ]
    here = [check for place in able.places if place.name == "local" for check in place.checks]
    lines += [f"{check.label}: {check.advice}" for check in here if not check.met and not check.optional]
    lines.append(f"Its memory holds an adapter (LoRA) on models of up to about **{_count(able.fits)} parameters**.")
    if able.within_an_hour is not None:
        hour = _count(min(able.within_an_hour, able.fits))
        lines.append(f"Up to about **{hour}** go {abilities.PASSES} times through {abilities.EXAMPLES} short examples within an hour.")
    choices = (DEMO, Choice("Which base model should I use?", "Which base model should I use?"))
    return Reply("machine", " ".join(lines), choices, (), facts=models_that_fit(desk, able)), state


def base_models(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What to start from."""
    able = abilities.look(desk.owner)
    text = (
        "The smallest that can do the task is the best start. nano, which ships with Thinker, is for seeing how it goes: it knows letters "
        "and little else. "
    )
    choices = tuple(Choice(f"Use {name.rpartition('/')[2]}", f"Use {name}") for name in suited(desk, able.machine.memory_free)[:2])
    rows = models_that_fit(desk, able)
    if not desk.policy.shared:
        text += "For questions, styles and code take one from the hub; the first run with it downloads it. What the free memory holds:"
    elif rows:
        text += "For questions, styles and code take one of those that are here; others use this machine too, so no more are "
        text += "downloaded:"
    else:
        text += "It is the one that is here: others use this machine too, so no more are downloaded."
    return Reply("base_models", text, choices or (Choice("Use nano", "Use nano"),), (_GUIDE,), facts=rows), state


def suited(desk: Desk, memory_free: float) -> list[str]:
    """Hub models that the memory holds, the owner may use and nobody has to consent to, the most able of those that a processor trains
    first."""
    known, most = knowledge.base_models(), abilities.fitting(memory_free)
    fit = [name for name, model in known.items() if not model.get("consent") and model["parameters"] <= most and desk.may_use(name)]
    return sorted(fit, key=lambda name: (known[name]["parameters"] > 1e9, -known[name]["parameters"]))


def models_that_fit(desk: Desk, able: Abilities) -> tuple[dict[str, Any], ...]:
    """A row a model that the owner may use: whether the memory holds it, what it needs at least, how fast these cores go through text."""
    rows = []
    for name, model in knowledge.base_models().items():
        if not desk.may_use(name):
            continue
        least = model["parameters"] * _BYTES + estimates.PROCESS_BYTES
        row = {
            "model": name.rpartition("/")[2],
            "fits": "yes" if model["parameters"] <= able.fits else "no",
            "memory, at least": size(least),
        }
        if not able.gpu:
            speed = estimates.table_speed(int(model["parameters"]), able.machine.cpus, knowledge.speeds())
            row["tokens a second"] = f"about {float(f'{speed:.2g}'):,.0f}"
        rows.append(row | {"note": model["note"] + (" Its owner asks for consent." if model.get("consent") else "")})
    return tuple(rows)


def _count(number: float) -> str:
    """Two figures that count: 260 million, 4.6 billion."""
    for unit, factor in (("billion", 1e9), ("million", 1e6)):
        if number >= factor:
            return f"{float(f'{number / factor:.2g}'):g} {unit}"
    return f"{number:,.0f}"


def _meaning(entry: dict[str, Any], brief: bool = False) -> str:
    """In the words of what it stands for, or in its own."""
    parts: list[str] = []
    if "method" in entry:
        method = knowledge.method(entry["method"])
        parts.append(method["meaning"])
        parts.append(f"Use it when: {method['use_when'][0]}")
        if not brief:
            parts.append(f"Rather not when: {method['not_when'][0]} It needs: {method['needs']}")
    if "field" in entry:
        field = next(field for field in fields() if field["name"] == entry["field"])
        parts.append(field["help"])
        if field["healthy"] and not brief:
            low, high = (figure(bound) for bound in field["healthy"])
            parts.append(f"Usually {low} to {high}{' ' + field['unit'] if field['unit'] else ''}.")
        if (known := knowledge.effects().get(entry["field"])) and not brief:
            parts.append(f"Too high: {known['high']}. Too low: {known['low']}.")
    if "metric" in entry:
        metric = knowledge.metric(entry["metric"])
        parts.append(metric["meaning"])
        if not brief:
            parts.append(f"Healthy: {metric['healthy']}")
    parts += [entry[name] for name in ("meaning", "more") if name in entry]
    return " ".join(dict.fromkeys(parts))


def _goal(method: str) -> str:
    """The title of what people come for whom a method serves."""
    goals = knowledge.goals().values()
    return next((str(goal["title"]) for goal in goals if goal["method"] == method and "demo" not in goal), "")


def _related(name: str) -> tuple[Choice, ...]:
    known = knowledge.terms()
    return tuple(Choice(known[other]["title"], f"What is {other}?") for other in known[name].get("see", [])[:3])


def _rate(desk: Desk, job: Job) -> str:
    """A run's learning rate against the recommended one."""
    try:
        rate = job.recipe.training.learning_rate
    except EngineError:
        return ""
    advised = desk.runs.recommended_rate(job.base_model)
    if not advised:
        return f"{called(job)} uses {rate:g}."
    times = rate / advised
    word = "what is recommended" if 0.8 < times < 1.25 else f"{times:.2g} times the recommended {advised:.2g}"
    judged = "fine" if 1 / 3 <= times <= 3 else "too high" if times > 3 else "low"
    return f"{called(job)} uses {rate:g}, {word} for {safe(job.base_model)}: {judged}."


def _advice(desk: Desk, path: str, base_model: str, state: State) -> dict[str, Any] | None:
    if path == "training.steps" and state.rows:
        return knowledge.steps_for(state.rows, 32)
    # Looking at a model downloads nothing.
    folder = models.at_hand(base_model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else {}
    return knowledge.recommend(config, base_model).get(path)


def _shown(value: Any) -> str:
    return figure(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
