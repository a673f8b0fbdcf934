"""What Thinker knows of methods, metrics, demos and good settings: YAML files beside this one, and small pure functions.

Tooltips, warnings, the guide and the CLI all read it here, so they can't disagree. Knows nothing of any particular run.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.errors import NotFound
from engine.recipe import METHODS


def methods() -> dict[str, dict[str, Any]]:
    """Every method by name: title, term, meaning, use_when, not_when, needs, goes_wrong, flow, watch, source."""
    return copy.deepcopy(_load("methods"))


def method(name: str) -> dict[str, Any]:
    """One method. Raises NotFound."""
    return _one("methods", "method", name)


def shapes() -> dict[str, dict[str, Any]]:
    """What rows of data can say, by name: title, short, meaning, row, add (what rows lack that aren't such), methods."""
    return copy.deepcopy(_load("shapes"))


def shape(method: str) -> Any:
    """The shape of the rows that a method learns from: answers, pairs, labels, prompts or preferences. Raises NotFound."""
    for name, known in _load("shapes").items():
        if method in known["methods"]:
            return name
    raise NotFound(f"there is no method called {method!r}", f"There are: {', '.join(_load('methods'))}.")


def metrics() -> dict[str, dict[str, Any]]:
    """Every metric by name: title, meaning, unit, better (up, down, neither), healthy, band, axis, red_flags [{sign, action, rule}]."""
    return copy.deepcopy(_load("metrics"))


def metric(name: str) -> dict[str, Any]:
    """One metric. Raises NotFound."""
    return _one("metrics", "metric", name)


def demos() -> dict[str, dict[str, Any]]:
    """Every demo by name: title, task, learns, expect, try (prompts), examples (counts), recipe (what to change in the defaults)."""
    return copy.deepcopy(_load("demos"))


def demo(name: str) -> dict[str, Any]:
    """One demo, or an example set that ships for a demo of a method. Raises NotFound."""
    return copy.deepcopy(_load("sets")[name]) if name in _load("sets") else _one("demos", "demo", name)


def sets() -> dict[str, dict[str, Any]]:
    """Example sets for demos of methods, which are no demos by themselves: as demos, and files (of engine/data/demos)."""
    return copy.deepcopy(_load("sets"))


def method_demos() -> dict[str, dict[str, Any]]:
    """Demos of methods and of stages, by name: title, task, learns, expect, try (prompts), recipe. Only of methods that can be chosen."""
    known = copy.deepcopy(_load("method_demos") or {})
    return {name: entry for name, entry in known.items() if set(methods_of(entry["recipe"])) <= set(METHODS)}


def demo_recipe(name: str) -> dict[str, Any]:
    """What differs from a recipe's defaults in a demo of either kind. Raises NotFound."""
    known = {**demos(), **method_demos(), **sets()}
    if name not in known:
        raise NotFound(f"there is no demo called {name!r}", f"There are: {', '.join(known)}.")
    return known[name]["recipe"]


def measured(data_set: str, methods: Sequence[str]) -> dict[str, Any]:
    """The recipe that was measured for these methods, one after the other, on an example set; for methods that none was measured for,
    the set's own. Raises NotFound."""
    for entry in method_demos().values():
        if entry["recipe"]["data"]["demo"] == data_set and methods_of(entry["recipe"]) == tuple(methods):
            return entry["recipe"]
    return demo(data_set)["recipe"]


def goals() -> dict[str, dict[str, Any]]:
    """What people come for, by name, in the order to show: title, icon, meaning, method, data, row; the demo names its demo, and `try`
    names a demo of the method. Only those whose method can be chosen."""
    found = {name: goal for name, goal in copy.deepcopy(_load("goals")).items() if goal["method"] in METHODS}
    shown = method_demos()
    for goal in found.values():
        if goal.get("try") not in shown:
            goal.pop("try", None)
    return found


def charts(method: str, kinds: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """The two metrics that a method is first of all judged by, in training and held out. `kinds` are its recipe's choices, by field,
    such as {"distill.kind": "on_policy"}. Raises NotFound."""
    known = _one("methods", "method", method)
    for field, by_kind in known.get("charts_by", {}).items():
        if found := by_kind.get((kinds or {}).get(field)):
            return found[0], found[1]
    return known["charts"][0], known["charts"][1]


def figures(method: str) -> list[str]:
    """The metrics that stand for a run on a card and in a line. Raises NotFound."""
    known = _one("methods", "method", method)
    return list(known.get("figures") or known["charts"])


def prices() -> dict[str, Any]:
    """as_of, source, and by endpoint {free or models, note}: the list that ships, in US dollars a million tokens. See `pricing`."""
    return copy.deepcopy(_load("prices"))


def speeds() -> dict[str, Any]:
    """Training speed by parameters a core, seconds to start, what sampling costs beside training, source."""
    return copy.deepcopy(_load("speeds"))


def lessons() -> dict[str, Any]:
    """How a model is taught by corrections: sizes, shares, and prompts that any model can be asked."""
    return copy.deepcopy(_load("lessons"))


def pairs() -> dict[str, dict[str, Any]]:
    """Every set of preference pairs by name: title, files (of engine/data/demos), format, learns, expect, examples (counts)."""
    return copy.deepcopy(_load("pairs"))


def profiles() -> dict[str, dict[str, Any]]:
    """The profiles that ship, by name: meaning, use_when, system_prompt, transforms, stop."""
    return copy.deepcopy(_load("profiles"))


def transforms() -> dict[str, dict[str, Any]]:
    """What can be done to every example, by the name that recipes use: title, meaning, fields."""
    return copy.deepcopy(_load("transforms"))


def rewards() -> dict[str, dict[str, Any]]:
    """Every kind of reward by name: title, icon, meaning, use_when, reads (fields of a part), pitfalls, example; needs (sandbox, model)."""
    return copy.deepcopy(_load("rewards"))


def terms() -> dict[str, dict[str, Any]]:
    """Every term of the trade by name: title, also (other words for it), see; and meaning, or the metric, field or method it stands for.
    Metrics that have no entry are terms by their own name."""
    return copy.deepcopy(_terms())


@cache
def _terms() -> dict[str, dict[str, Any]]:
    known = copy.deepcopy(_load("terms"))
    told = {entry.get("metric") for entry in known.values()}
    said = {words.lower() for name, entry in known.items() for words in (name, entry["title"], *entry.get("also", []))}
    for name, entry in _load("metrics").items():
        if name not in told:
            # Its term of art stands in brackets at the end of its meaning.
            art = re.findall(r"\(([^()]+)\)\.?$", entry["meaning"].split(". ")[0])
            words = [entry["title"], name, name.replace("_", " "), *(word for one in art for word in one.split(", "))]
            # One that is a word of everyday, such as tokens, is meant by its title alone.
            also = [one for one in dict.fromkeys(words) if one.lower() not in {*said, "tokens", "seconds", "dollars"}]
            said |= {one.lower() for one in also}
            known[also[0].lower()] = {"title": entry["title"], "also": also[1:], "metric": name}
    return known


def base_models() -> dict[str, dict[str, Any]]:
    """Base models to begin with, by hub id: family, parameters, note, consent."""
    return copy.deepcopy(_load("base_models")["models"])


def effects() -> dict[str, dict[str, str]]:
    """What going too far does, by recipe field: {high, low}."""
    return copy.deepcopy(_load("hyperparameters")["effects"])


def recommend(config: dict[str, Any], base_model: str = "", lora: bool = True, method: str = "sft") -> dict[str, dict[str, Any]]:
    """Settings to start from, by recipe field: {"training.learning_rate": {value, reason, source}, ...}.

    `config` is the model's config.json. The learning rate is the tinker-cookbook's formula; for a family that it wasn't fitted
    to, the more careful of its two curves. Other methods take a share of it.
    """
    known = _load("hyperparameters")
    rates, own = known["learning_rate"], known["methods"].get(method, {})
    others = copy.deepcopy(known["others"] | own.get("others", {}))
    small = rates["measured" if lora else "measured_full"].get(base_model)
    rate = {**small, "source": "Thinker's own demos"} if small else _learning_rate(config, rates, lora)
    if small and base_model in own.get("measured", {}):
        found = own["measured"][base_model]
        full = small["value"] / rates["measured"][base_model]["value"]
        rate = {"value": found["value"] * full, "reason": found["reason"], "source": "Thinker's own demos"}
    elif share := own.get("rate"):
        reason = f"{share['reason']} For examples it would be {rate['value']:.2g}. {rate['reason']}"
        rate = {"value": float(f"{rate['value'] * share['share']:.3g}"), "reason": reason, "source": share["source"]}
    return {"training.learning_rate": rate, **others}


def steps_for(rows: int, batch_size: int) -> dict[str, Any]:
    """How long to train on so many rows: {value: updates, reason, source}. Once through, but no less than the usual floor of updates,
    for which a small data set is gone through several times."""
    length = _load("hyperparameters")["length"]
    once = math.ceil(rows / batch_size)
    most = math.ceil(rows * length["most_epochs"] / batch_size)
    steps = max(once, min(length["least_steps"], most))
    passes = steps * batch_size / rows
    times = "once" if passes < 1.5 else f"about {passes:.0f} times"
    return {"value": steps, "reason": f"Goes through {rows:,} examples {times}. {length['reason']}", "source": length["source"]}


def _learning_rate(config: dict[str, Any], rates: dict[str, Any], lora: bool) -> dict[str, Any]:
    # Models that also see or hear keep the language model's sizes one level down.
    inner = config.get("text_config") or {}
    hidden = config.get("hidden_size") or config.get("n_embd") or inner.get("hidden_size")
    start = rates["base"] * (rates["lora_factor"] if lora else 1)
    if not hidden:
        reason = "The model's size isn't known, so this is the rate for one with a hidden size of 2,000."
        return {"value": start, "reason": reason, "source": rates["source"]}
    kind = str(config.get("model_type") or inner.get("model_type") or "").lower()
    scaled = {name: start * (rates["reference_hidden"] / hidden) ** exponent for name, exponent in rates["exponents"].items()}
    family = next((name for name in scaled if name in kind), None)
    if family:
        reason = f"The formula for {family.capitalize()} models, at a hidden size of {hidden:,}."
        return {"value": scaled[family], "reason": reason, "source": rates["source"]}
    family = kind or "this family"
    reason = f"No formula was fitted to {family}; this is the more careful of Qwen's and Llama's at a hidden size of {hidden:,}."
    return {"value": min(scaled.values()), "reason": reason, "source": rates["source"]}


@cache
def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))


def methods_of(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """A recipe's methods in order, read off what differs from the defaults."""
    found = [recipe.get("method", "sft")]
    for stage in recipe.get("then", ()):
        found.append(stage.get("method", found[-1]))
    return tuple(found)


def _one(file: str, kind: str, name: str) -> dict[str, Any]:
    entries = _load(file)
    if name not in entries:
        raise NotFound(f"there is no {kind} called {name!r}", f"There are: {', '.join(entries)}.")
    return copy.deepcopy(entries[name])
