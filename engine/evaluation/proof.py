"""Did it get better? The same questions before and after, on examples the model has never seen. Knows no endpoints.

Held-out: exact match and token F1 of greedy answers, perplexity of the right ones. General skills: exact match on
what the base model could do before, to see what was forgotten. `ask` answers prompts; it is given from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.data.examples import Example
from engine.evaluation.metrics import exact_match, perplexity, score

Ask = Callable[[Sequence[Example], str], list[str]]
Judge = Callable[[list[Example], list[str]], dict[str, float]]
EXAMPLES_KEPT = 40


def measure(
    ask: Ask,
    held_out: Sequence[Example],
    skills: Sequence[Example],
    loss: float | None,
    loss_tokens: int,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """One side of the proof, JSON-ready: {held_out: {...} | None, skills: {...} | None, answers: {...}}.

    `loss` is the mean held-out loss per answer token (nats), `loss_tokens` over how many; `judge` gives numbers of its own.
    """
    answers = ask(held_out, "held-out examples") if held_out else []
    skill_answers = ask(skills, "general skills") if skills else []
    known = [(answer, example.expected) for answer, example in zip(answers, held_out, strict=True) if example.expected]
    found = score([said for said, _ in known], [right for _, right in known]).to_dict() if known else None
    if found is not None and loss is not None:
        found |= {"loss": loss, "perplexity": perplexity(loss * loss_tokens, loss_tokens)}
    own = judge(list(held_out), answers) if judge and held_out else {}
    if own:
        found = (found or {}) | own
    return {
        "held_out": found,
        "skills": score(skill_answers, [example.answer for example in skills]).to_dict() if skills else None,
        "answers": {"held_out": answers, "skills": skill_answers},
    }


def compare(
    before: dict[str, Any], after: dict[str, Any], held_out: Sequence[Example], wins: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The proof as it is stored: both sides, how many examples got better and worse, some to look at, and who `wins` (winrate.py)."""
    rows = []
    for example, old, new in zip(held_out, before["answers"]["held_out"], after["answers"]["held_out"], strict=True):
        # Where nothing is expected, no answer is right or wrong.
        was, now = (exact_match(said, example.expected) if example.expected else None for said in (old, new))
        rows.append(
            {
                "prompt": example.prompt[-1]["content"],
                "expected": example.expected,
                "before": old,
                "after": new,
                "was_right": was,
                "is_right": now,
            }
        )
    judged = [row for row in rows if row["is_right"] is not None]
    # What changed comes first: an example that got worse tells more than one that is still wrong.
    interesting = sorted(judged, key=lambda row: (row["is_right"], row["is_right"] == row["was_right"]))
    wrong = [row for row in interesting if not row["is_right"]][: EXAMPLES_KEPT // 2]
    right = [row for row in interesting if row["is_right"]][: EXAMPLES_KEPT - len(wrong)]
    unjudged = [row for row in rows if row["is_right"] is None][: EXAMPLES_KEPT - len(wrong) - len(right)]
    return {
        "held_out": {"before": before["held_out"], "after": after["held_out"]},
        "skills": {"before": _rate(before), "after": _rate(after)},
        "skills_detail": {"before": before["skills"], "after": after["skills"]},
        "better": sum(row["is_right"] and not row["was_right"] for row in judged),
        "worse": sum(row["was_right"] and not row["is_right"] for row in judged),
        "asked": len(rows),
        "examples": wrong + right + unjudged,
        "win_rate": wins,
    }


def _rate(side: dict[str, Any]) -> float | None:
    return side["skills"]["exact_match"] if side["skills"] else None
