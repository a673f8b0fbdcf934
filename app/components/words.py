"""Numbers and states as people say them. Pure: knows no screen beyond Streamlit's Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from engine import knowledge
from engine.amounts import measure
from engine.evaluation import outcome
from engine.evaluation.curves import Curve

LOSSES = ("train_loss", "held_out_loss")

_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_LABEL_MARKS = re.compile(r"([\\`*_\[\]~$<]|:(?=[A-Za-z])|^[#>+-])")
_OWN_MARKS = re.compile(r"([$<]|:(?=[A-Za-z]))")
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$<>:^])")


def literal(text: str) -> str:
    """Text of people and models for Markdown: nothing in it is markup."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))


def sentence(text: str) -> str:
    """What the engine says in the midst of a line, at the beginning of one."""
    return text[:1].upper() + text[1:]


def label(text: str) -> str:
    """The same for a widget's label, which screen readers are told as it is written: only what could begin markup is escaped."""
    return _LABEL_MARKS.sub(r"\\\1", " ".join(str(text).split()))


def prose(text: str) -> str:
    """What a model wrote, as Markdown that stays within itself: line ends kept, nothing fetched from outside, none of Streamlit's own
    marks. Code is left as it is."""
    pieces = _CODE.split(text)
    return "".join(piece if number % 2 else _tamed(piece) for number, piece in enumerate(pieces))


def _tamed(text: str) -> str:
    text = _OWN_MARKS.sub(r"\\\1", text)
    # A picture would be fetched from wherever the text says.
    return re.sub(r"(?<!\n)\n(?!\n)", "  \n", text.replace("![", "!\\["))


def code(text: str, limit: int = 120) -> str:
    """The same in a fixed-width face, on one line, cut to `limit` characters."""
    flat = " ".join(text.split())
    if not flat:
        return ":gray[(nothing)]"
    flat = flat if len(flat) <= limit else flat[: limit - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", flat)), default=0))
    edge = " " if flat[0] == "`" or flat[-1] == "`" else ""
    return f"{fence}{edge}{flat}{edge}{fence}"


def acronym(term: str) -> str:
    """A method's short name: SFT of "supervised fine-tuning (SFT)"; where it has none, its term."""
    inner = re.search(r"\(([^()]+)\)$", term)
    return inner[1].split(",")[0] if inner else term


def percent(share: float | None) -> str:
    """97.5 %, 97 %, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + " %"


def figure(value: float | None) -> str:
    """Three figures that count, as short as they go."""
    return "–" if value is None else measure(value)


def ago(seconds: float) -> str:
    """just now, 5 min ago, 2 h ago, 3 days ago."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{seconds // 86400:.0f} days ago"


def count(number: float) -> str:
    """About so many, two figures that count: 260 million, 4.6 billion."""
    rounded = float(f"{number:.2g}")
    for unit, factor in (("billion", 1e9), ("million", 1e6)):
        if rounded >= factor:
            return f"{rounded / factor:.2g} {unit}" if rounded / factor < 100 else f"{rounded / factor:.0f} {unit}"
    return f"{rounded:,.0f}"


def curve_finding(
    train: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]], moving: bool, names: tuple[str, str] = LOSSES
) -> str:
    """What the curves that a run is judged by say, in one sentence: a loss that is to fall, or a score that is to rise."""
    train, held_out = (points if isinstance(points, Curve) else Curve(points) for points in (train, held_out))
    titles = [knowledge.metric(name)["title"] for name in names]
    for title, curve in zip(titles, (train, held_out), strict=True):
        finite, _ = curve.finite()
        if len(finite) < len(curve):
            step = next(step for step, value in curve if not math.isfinite(value))
            return f"{title} stopped being a number at step {step}: the learning rate is too high"
    at = 1 if len(held_out) > 1 else 0
    title, name, curve = titles[at], names[at], (train, held_out)[at]
    if len(curve) < 2:
        return f"{'The loss' if names == LOSSES else titles[0]} appears with the first steps"
    known = knowledge.metric(name)
    up, unit = known["better"] == "up", known["unit"]
    first, last = curve[0][1], curve[-1][1]
    best_step, best = curve[int(curve.values.argmax() if up else curve.values.argmin())]
    said = {value: measure(value, unit if unit == "share" else "") for value in (first, last, best)}
    slack = 0.05 * abs(best) + 0.005
    # One batch says little about training, so only the held-out curve is judged by its best point.
    if at and best_step != curve[-1][0] and (last < best - slack if up else last > best + slack):
        turned = "highest" if up else "lowest"
        return f"{title} was {turned} at step {best_step} ({said[best]}) and has {'fallen' if up else 'risen'} to {said[last]} since"
    if (last <= first + 0.02 * abs(first)) if up else (last >= 0.98 * first):
        return f"{title} hasn't {'risen' if up else 'fallen'} yet: {said[first]} at first, {said[last]} now"
    went = ("has risen" if moving else "rose") if up else ("has fallen" if moving else "fell")
    return f"{title} {went} from {said[first]} to {said[last]}"


def proof_sentences(result: dict[str, Any]) -> list[str]:
    """What the proof says, sentence by sentence, in Markdown. Empty if nothing was proven."""
    found = {one.name: one for one in outcome.numbers(result)}
    after = (result.get("held_out") or {}).get("after") or {}
    if not found or not (result.get("held_out") or {}).get("before"):
        return []
    sentences = []
    if (right := found.pop("exact_match", None)) and right.before is not None:
        low, high = 100 * after["exact_match_low"], 100 * after["exact_match_high"]
        sentences.append(
            f"**Right answers on {after['count']:,} prompts it had never seen (exact match): {percent(right.before)} → "
            f"{percent(right.after)}** (95 % interval {low:.0f} to {high:.0f})."
        )
        sentences.append(f"{result['better']:,} of these prompts got better, {result['worse']:,} worse.")
    if won := outcome.wins_sentence(result):
        sentences.append(literal(won))
    surprise = found.pop("perplexity", None)
    found.pop("token_f1", None)
    for one in found.values():
        went = measure(one.after, one.unit) if one.before is None else f"{measure(one.before, one.unit)} → {measure(one.after, one.unit)}"
        asked = outcome.count(result)
        on = f" on {asked:,} prompts it had never seen" if asked and not sentences else ""
        strong = "**" if not sentences else ""
        sentences.append(f"{strong}{literal(one.title)}{on}: {went}{strong}.")
    sentences += _skills(result)
    if surprise and surprise.before is not None:
        went = f"{figure(surprise.before)} → {figure(surprise.after)}"
        sentences.append(f"Its surprise at the right answers (perplexity): {went}; 1 is none.")
    return sentences


def at_slider(text: str) -> str:
    """What stands over a slider's handle, in the blue that is read on black: a slider of itself takes the buttons' darker one."""
    return f":blue[{text}]"


def lesson_sentences(lesson: dict[str, Any], proof: dict[str, Any]) -> list[str]:
    """What came of a lesson, sentence by sentence, in Markdown."""
    cases, earlier = lesson["cases"], lesson.get("earlier") or []
    was, now = (sum(bool(case[side]) for case in cases) for side in ("was_right", "right"))
    sentences = [f"**It answers {now} of {len(cases)} corrected prompts as taught**, {was or 'none'} before."]
    if earlier:
        kept = sum(bool(case["right"]) for case in earlier)
        sentences.append(f"Of what earlier lessons taught it still answers {kept} of {len(earlier)} so.")
    return sentences + _skills(proof)


def _skills(result: dict[str, Any]) -> list[str]:
    skills, detail = result.get("skills") or {}, (result.get("skills_detail") or {}).get("after") or {}
    if skills.get("before") is None or skills.get("after") is None:
        return []
    count = f" on {detail['count']:,} tasks from before" if detail.get("count") else ""
    left = skills["after"] / skills["before"] if skills["before"] else 1.0
    word = "kept" if left >= 0.95 else "partly forgotten" if left >= 0.5 else "mostly forgotten"
    return [f"General skills{count}: {percent(skills['before'])} → {percent(skills['after'])} ({word})."]


def short_result(result: dict[str, Any] | None) -> str:
    """The proof in half a line; nothing without one."""
    found = outcome.headline(result)
    if (found is None or found.before is None) and (lesson := (result or {}).get("lesson")):
        return f"answers {sum(bool(case['right']) for case in lesson['cases'])} of {len(lesson['cases'])} corrected prompts as taught"
    if found is None or found.before is None:
        return ""
    went, asked = f"{measure(found.before, found.unit)} → {measure(found.after, found.unit)}", outcome.count(result)
    if found.name == "exact_match":
        return f"{went} right on {asked:,} new prompts"
    return f"{found.title.lower()} {went}" + (f" on {asked:,} new prompts" if asked else "")


def verdict(result: dict[str, Any] | None) -> tuple[str, str]:
    """Whether it got better, in words, and the colour for them; empty without a proof."""
    found = outcome.headline(result)
    if found is None or found.gain is None:
        return "", "gray"
    if not found.changed:
        return ("no more right answers than before" if found.name == "exact_match" else "no better than before"), "gray"
    size = 100 * abs(found.gain) if found.unit == "share" else abs(found.gain)
    amount = f"{size:.0f} {'point' if round(size) == 1 else 'points'}" if found.unit == "share" else measure(size)
    return (f"better by {amount}", "green") if found.gain > 0 else (f"worse by {amount}", "orange")


def figure_or_text(value: Any) -> str:
    """A number as `figure` says it, a switch as on or off, anything else as it is."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return figure(value) if isinstance(value, int | float) else literal(value)
