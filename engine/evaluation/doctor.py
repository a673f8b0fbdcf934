"""The run doctor: looks at a run's curves and says what is wrong, how it shows, and what to do.

The rules and their numbers are the red flags in engine/knowledge/metrics.yaml; here is how each is recognised. Knows curves and
a recipe's learning rate; nothing of stores, jobs or screens. Every rule waits until there is enough to judge by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from engine import knowledge
from engine.evaluation.curves import Curve, smoothed

LOSSES = ("train_loss", "held_out_loss")
_PEAKS_SEEN = 500


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw. `changes` are what to change in the recipe for another try, where that can be said."""

    level: Literal["good", "note", "warning", "stop"]
    metric: str
    sign: str
    detail: str
    action: str
    step: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Band:
    """The healthy range of a metric as numbers; None is open. `words` say what it is."""

    low: float | None
    high: float | None
    words: str


def examine(
    curves: Mapping[str, Curve],
    *,
    rate: float,
    recommended: float | None = None,
    moving: bool = False,
    alike: bool = True,
    main: tuple[str, str] = LOSSES,
) -> list[Finding]:
    """What there is to say of a run, the gravest first; one good or undecided sentence where nothing is wrong.

    `rate` is the recipe's learning rate, `recommended` what suits the model (None: not known), `moving` whether it still runs,
    `alike` whether held-out and training examples are meant to be of one kind (a demo's aren't: general rows are mixed into its training).
    `main` names what the method is first of all judged by, in training and held out: a loss, or a score that rises.
    """
    train, held_out = (curves.get(name) or Curve() for name in main)
    # Where it's known what suits the model, a rate that was too high isn't cut to one that is too high still.
    most = min(recommended or rate, rate)
    found = [
        _not_a_number(dict(zip(main, (train, held_out), strict=True)), min(rate / 10, most)),
        _rises(main[0], train, min(rate / 3, most)),
        _hardly_falls(main[0], train, rate, recommended),
        _turns_up(main, held_out, train),
        _far_above(held_out, train) if alike and main == LOSSES else None,
        *_gradients(curves.get("grad_norm") or Curve(), min(rate / 3, most)),
        _rate(rate, recommended),
        _slows(curves.get("tokens_per_second") or Curve()) if moving else None,
        *_out_of_bounds(curves),
    ]
    order = {"stop": 0, "warning": 1, "note": 2}
    there = sorted((finding for finding in found if finding), key=lambda finding: order[finding.level])
    return there or [_all_well(main, train, held_out, moving)]


def band(name: str, curve: Curve, recommended: float | None = None) -> Band | None:
    """The healthy range of a metric, where it is known as numbers."""
    known = _bands().get(name)
    _, values = curve.finite()
    if not known or (len(values) < 5 and known["of"] != "recommended"):
        return None
    if known["of"] == "fixed":
        low, high = known.get("from"), known.get("to")
        said = (
            f"healthy: {low:g} to {high:g}"
            if low and high is not None
            else f"healthy: up to {high:g}"
            if high is not None
            else f"healthy: from {low:g}"
        )
        return Band(low, high, said)
    anchors = {"lowest": lambda: float(values.min()), "median": lambda: _usual(values), "recommended": lambda: recommended}
    anchor = anchors[known["of"]]()
    if not anchor:
        return None
    low, high = (anchor * known[side] if known.get(side) is not None else None for side in ("from", "to"))
    of = {"lowest": "its lowest", "median": "its usual size", "recommended": "what is recommended for this model"}[known["of"]]
    if low and high:
        words = f"healthy: {known['from']:g} to {known['to']:g} times {of}"
    else:
        words = f"healthy: below {known['to']:g} times {of}" if high else f"healthy: above {known['from']:g} times {of}"
    return Band(low, high, words)


def _not_a_number(losses: dict[str, Curve], better: float) -> Finding | None:
    for name, curve in losses.items():
        odd = np.flatnonzero(~np.isfinite(curve.values))
        if len(odd):
            step = int(curve.steps[odd[0]])
            title = knowledge.metric(name)["title"]
            detail = f"{title} stopped being a number at step {step:,}."
            known = name if _rule(name, "not_a_number") else "train_loss"
            return _finding("stop", known, "not_a_number", detail, step, {"learning_rate": better})
    return None


def _rises(name: str, train: Curve, better: float) -> Finding | None:
    rule = _rule(name, "rises")
    steps, values = train.finite()
    if not rule or len(values) < 20:
        return None
    means = smoothed(values, max(5, len(values) // 10))[4:]
    best = int(means.argmin())
    now, lowest = float(means[-1]), float(means[best])
    if now <= rule["times"] * lowest + rule["slack"]:
        return None
    step = int(steps[best + 4])
    detail = f"It was down to {lowest:.3g} around step {step:,} and is at {now:.3g} now (means of the steps around)."
    return _finding("warning", name, "rises", detail, step, {"learning_rate": better})


def _hardly_falls(name: str, train: Curve, rate: float, recommended: float | None) -> Finding | None:
    rule = _rule(name, "hardly_falls")
    _, values = train.finite()
    if not rule or len(values) < rule["after"]:
        return None
    first, now = float(values[:3].mean()), float(values[-max(5, len(values) // 10) :].mean())
    if now <= (1 - rule["share"]) * first or now > 1.2 * first:
        return None
    detail, better = f"{first:.3g} at first, {now:.3g} now.", rate * 3
    if recommended and rate < recommended / 2:
        better = recommended
        detail += f" The learning rate is {_times(recommended / rate)} below what this model wants."
    return _finding("warning", name, "hardly_falls", detail, None, {"learning_rate": better})


def _turns_up(main: tuple[str, str], held_out: Curve, train: Curve) -> Finding | None:
    rule = _rule(main[1], "turns_up")
    steps, values = held_out.finite()
    if not rule or len(values) < 3:
        return None
    best, now = int(values.argmin()), float(values[-1])
    since = values[best + 1 :][-rule["in_a_row"] :]
    if len(since) < rule["in_a_row"] or since.min() <= rule["times"] * values[best] + rule["slack"]:
        return None
    step = int(steps[best])
    detail = f"It was lowest at step {step:,} ({values[best]:.3g}) and has risen to {now:.3g} since."
    _, learnt = train.finite()
    by_heart = _rule(main[0], "by_heart")
    if by_heart and len(learnt) >= 5 and learnt[-5:].mean() < by_heart["below"]:
        detail += f" The training loss is {learnt[-5:].mean():.2g}: the model is learning the examples by heart."
    return _finding("warning", main[1], "turns_up", detail, step, {"steps": max(1, step)})


def _far_above(held_out: Curve, train: Curve) -> Finding | None:
    rule = _rule("held_out_loss", "far_above")
    if not held_out or not train or held_out[0][0] > 1 or train[0][0] > 1:
        return None
    first, learnt = held_out[0][1], train[0][1]
    if not np.isfinite([first, learnt]).all() or first <= rule["times"] * learnt + 0.05:
        return None
    return _finding("note", "held_out_loss", "far_above", f"{first:.3g} against {learnt:.3g} before anything was learned.", 0)


def _gradients(norm: Curve, better: float) -> list[Finding | None]:
    steps, values = norm.finite()
    if len(values) >= 2 and values[-1] == 0 and values[-2] == 0:
        return [_finding("stop", "grad_norm", "zero", f"Since step {int(steps[-2]):,} nothing pulls at the weights.", int(steps[-2]))]
    found: list[Finding | None] = []
    grows, peaks = _rule("grad_norm", "grows"), _rule("grad_norm", "peaks")
    if len(values) >= grows["after"]:
        fifth = len(values) // 5
        early, late = float(np.median(values[fifth : 2 * fifth])), float(np.median(values[-fifth:]))
        if early > 0 and late > grows["times"] * early:
            detail = f"From {early:.3g} early on to {late:.3g} now."
            found.append(_finding("warning", "grad_norm", "grows", detail, None, {"learning_rate": better}))
    window = peaks["after"]
    if len(values) > window:
        recent, at = values[-(_PEAKS_SEEN + window) :], steps[-(_PEAKS_SEEN + window) :]
        usual = np.median(np.lib.stride_tricks.sliding_window_view(recent[:-1], window), axis=1)
        high = np.flatnonzero((recent[window:] > peaks["times"] * usual) & (usual > 0))
        if len(high):
            step, times = int(at[window + high[-1]]), recent[window + high[-1]] / usual[high[-1]]
            often = "Once" if len(high) == 1 else f"{len(high)} times, the last"
            found.append(_finding("note", "grad_norm", "peaks", f"{often} at step {step:,}: {_times(times)} the usual size.", step))
    return found


def _rate(rate: float, recommended: float | None) -> Finding | None:
    if not recommended:
        return None
    changes = {"learning_rate": recommended}
    if rate > _rule("learning_rate", "too_high")["times"] * recommended:
        detail = f"{rate:g} is {_times(rate / recommended)} the {recommended:.2g} that suits this model."
        return _finding("warning", "learning_rate", "too_high", detail, None, changes)
    if rate < recommended / _rule("learning_rate", "too_low")["times"]:
        detail = f"{rate:g} is {_times(recommended / rate)} below the {recommended:.2g} that suits this model."
        return _finding("warning", "learning_rate", "too_low", detail, None, changes)
    return None


def _slows(speed: Curve) -> Finding | None:
    rule = _rule("tokens_per_second", "slows")
    _, values = speed.finite()
    if len(values) < rule["after"]:
        return None
    now, usual = float(np.median(values[-10:])), _usual(values)
    if now >= rule["share"] * usual:
        return None
    return _finding("note", "tokens_per_second", "slows", f"{now:,.0f} tokens/s now; {usual:,.0f} is usual for this run.", None)


def _out_of_bounds(curves: Mapping[str, Curve]) -> list[Finding | None]:
    """Metrics that stay where they shouldn't: the rules that are the same for any metric."""
    found = []
    for name, curve in curves.items():
        for rule in _bounds().get(name, ()):
            steps, values = curve.finite()
            last = values[-rule["in_a_row"] :]
            if len(last) < rule["in_a_row"]:
                continue
            bound = rule["value"]
            out = {"stays_above": last > bound, "stays_below": last < bound, "stays_at": np.isclose(last, bound)}[rule["name"]]
            if out.all():
                detail = f"{last.mean():.3g} in the last {len(last)} measurements, step {int(steps[-1]):,} among them."
                found.append(_finding("warning", name, rule["name"], detail, int(steps[-len(last)])))
    return found


def _all_well(main: tuple[str, str], train: Curve, held_out: Curve, moving: bool) -> Finding:
    if len(train) < 10:
        return Finding("note", main[0], "Too early to say.", "The first ten steps tell little.", "")
    known = knowledge.metric(main[1])
    up = known["better"] == "up"
    detail = ""
    if len(held_out) > 1:
        best = max(value for _, value in held_out) if up else min(value for _, value in held_out)
        if held_out[-1][1] == best:
            still, did = ("rising", "rose") if up else ("falling", "fell")
            title = known["title"]
            detail = f"{title} is still {still}." if moving else f"{title} {did} to the end: more steps may help further."
    return Finding("good", main[0], "All well.", detail, "")


def _finding(level: Any, metric: str, rule: str, detail: str, step: int | None, training: dict[str, Any] | None = None) -> Finding:
    flag = next(flag for flag in knowledge.metric(metric)["red_flags"] if flag.get("rule", {}).get("name") == rule)
    title = knowledge.metric(metric)["title"]
    sign = flag["sign"]
    said = f"{title}: {sign[0].lower()}{sign[1:]}"
    return Finding(level, metric, said, detail, flag["action"], step, {"training": training} if training else {})


def _usual(values: np.ndarray) -> float:
    """The median, of some thousand values spread over all of them where there are more: it's asked for every second."""
    return float(np.median(values[:: max(1, len(values) // 2000)]))


@cache
def _bands() -> dict[str, dict[str, Any]]:
    return {name: entry["band"] for name, entry in knowledge.metrics().items() if "band" in entry}


@cache
def _rule(metric: str, name: str) -> dict[str, Any]:
    """Empty where the metric has none of that name."""
    return next((flag["rule"] for flag in knowledge.metric(metric)["red_flags"] if flag.get("rule", {}).get("name") == name), {})


@cache
def _bounds() -> dict[str, list[dict[str, Any]]]:
    """The rules of staying within bounds, by metric."""
    rules = {name: [flag.get("rule", {}) for flag in entry["red_flags"]] for name, entry in knowledge.metrics().items()}
    return {name: kept for name, known in rules.items() if (kept := [rule for rule in known if rule.get("name", "").startswith("stays_")])}


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 9.5 else f"{ratio:.2g} times"
