"""Numbers and states as people say them. Pure: knows no screen beyond Streamlit's Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from engine.evaluation.curves import Curve

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


def percent(share: float | None) -> str:
    """97.5 %, 97 %, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + " %"


def figure(value: float | None) -> str:
    """Three figures that count, as short as they go."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "beyond measure"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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


def loss_finding(train: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]], moving: bool) -> str:
    """What the loss curves say, in one sentence."""
    train, held_out = (points if isinstance(points, Curve) else Curve(points) for points in (train, held_out))
    for name, curve in (("Training", train), ("Held-out", held_out)):
        finite, _ = curve.finite()
        if len(finite) < len(curve):
            step = next(step for step, value in curve if not math.isfinite(value))
            return f"{name} loss stopped being a number at step {step}: the learning rate is too high"
    name, curve = ("Held-out", held_out) if len(held_out) > 1 else ("Training", train)
    if len(curve) < 2:
        return "The loss appears with the first steps"
    first, last = curve[0][1], curve[-1][1]
    best_step, best = curve[int(curve.values.argmin())]
    # One batch says little about the training loss, so only the held-out loss is judged by its lowest point.
    if name == "Held-out" and best_step != curve[-1][0] and last > 1.05 * best + 0.005:
        return f"Held-out loss was lowest at step {best_step} ({figure(best)}) and has risen to {figure(last)} since"
    if last >= 0.98 * first:
        return f"{name} loss hasn't fallen yet: {figure(first)} at first, {figure(last)} now"
    return f"{name} loss {'has fallen' if moving else 'fell'} from {figure(first)} to {figure(last)}"


def proof_sentences(result: dict[str, Any]) -> list[str]:
    """What the proof says, sentence by sentence, in Markdown. Empty if nothing was proven."""
    before, after = (result["held_out"].get(side) for side in ("before", "after"))
    if not before or not after:
        return []
    low, high = 100 * after["exact_match_low"], 100 * after["exact_match_high"]
    sentences = [
        f"**Right answers on {after['count']:,} prompts it had never seen (exact match): {percent(before['exact_match'])} → "
        f"{percent(after['exact_match'])}** (95 % interval {low:.0f} to {high:.0f}).",
        f"{result['better']:,} of these prompts got better, {result['worse']:,} worse.",
    ]
    sentences += _skills(result)
    if before.get("perplexity") is not None and after.get("perplexity") is not None:
        went = f"{figure(before['perplexity'])} → {figure(after['perplexity'])}"
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
    if cases := ((result or {}).get("lesson") or {}).get("cases"):
        return f"answers {sum(bool(case['right']) for case in cases)} of {len(cases)} corrected prompts as taught"
    held_out = (result or {}).get("held_out") or {}
    before, after = held_out.get("before"), held_out.get("after")
    if not before or not after:
        return ""
    return f"{percent(before['exact_match'])} → {percent(after['exact_match'])} right on {after['count']:,} new prompts"


def verdict(result: dict[str, Any] | None) -> tuple[str, str]:
    """Whether it got better, in words, and the colour for them; empty without a proof."""
    held_out = (result or {}).get("held_out") or {}
    before, after = held_out.get("before"), held_out.get("after")
    if not before or not after:
        return "", "gray"
    points = 100 * (after["exact_match"] - before["exact_match"])
    if abs(points) < 0.5:
        return "no more right answers than before", "gray"
    amount = f"{abs(points):.0f} {'point' if round(abs(points)) == 1 else 'points'}"
    return (f"better by {amount}", "green") if points > 0 else (f"worse by {amount}", "orange")


def figure_or_text(value: Any) -> str:
    """A number as `figure` says it, a switch as on or off, anything else as it is."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return figure(value) if isinstance(value, int | float) else literal(value)
