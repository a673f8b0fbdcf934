"""Who wins: the answers of what was trained against those of what its last stage began with, prompt by prompt, by a judge.

The judge is what `evaluation.judge` says, else the right answers. It scores each answer by itself, so no order can sway it. Knows no
method; what it says of both sides is compared elsewhere (engine.evaluation.winrate).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.data.examples import Example
from engine.errors import DataError, EndpointLost, EngineError
from engine.evaluation import winrate
from engine.recipe import Recipe, Reward, RewardPart
from engine.training.reach import Reach
from engine.training.rewards import Rollout, Score, labels, make_reward, needs_endpoint
from engine.training.skipping import Skipped, skippable

if TYPE_CHECKING:
    from engine.training.attempt import Attempt

FIELD = "recipe evaluation.judge"
Answers = Callable[[Any, list[Example]], list[str]]


def check(recipe: Recipe) -> None:
    """Before anything is spent: the judge can be used as it stands. Raises RecipeError and StateError."""
    if recipe.evaluation.judge and recipe.evaluation.proof and not needs_endpoint(_spec(recipe.evaluation.judge)):
        make_reward(_spec(recipe.evaluation.judge), None, FIELD).close()


def judged(at: Attempt, before: dict[str, Any] | None, after: dict[str, Any] | None, ask: Answers) -> dict[str, Any] | None:
    """The win rate, JSON-ready: wins, ties, losses, rate, low, high, count, `unjudged` (prompts of which an answer couldn't be scored),
    `judge` (what it went by) and `against` ("start", or "stage" where stages came before). None without both sides or a judge, with
    `problem` where the judge failed. Raises Asked for a pause or a stop, EndpointLost. `ask` has a sampler answer examples."""
    judge = at.run.recipe.evaluation.judge
    parts = judge or (RewardPart(),)
    rows = _prompts(at.work.data.held_out, known=not judge)
    if before is None or after is None or not rows:
        return None
    examples = [at.work.data.held_out[place] for place in rows]
    found: dict[str, Any] = {"judge": labels(parts), "against": "stage" if at.work.begins >= 0 else "start"}
    reach = Reach(at.desk)
    try:
        with skippable(at, "the win rate", rests=True):
            theirs = [before["answers"]["held_out"][place] for place in rows]
            if at.work.begins >= 0:
                at.run.stage("testing what the last stage began with")
                theirs = ask(at.desk.start_sampler(), examples)
            at.run.stage("judging which answers are better")
            ours = [after["answers"]["held_out"][place] for place in rows]
            scores = _scores(at, parts, reach, [*examples, *examples], [*ours, *theirs])
            # Of an answer that couldn't be scored nobody knows how good it is.
            both = [pair for pair in zip(scores[: len(rows)], scores[len(rows) :], strict=True) if not any(one.failed for one in pair)]
            if not both:
                failed = next(score for score in scores if score.failed)
                raise DataError(f"of no prompt could both answers be scored: {failed.note}", "Take another judge.", where=FIELD)
    except Skipped:
        return None
    except EndpointLost:
        raise
    except EngineError as error:
        # What was trained is whole, and so is the rest of the proof.
        at.run.log("warning", f"the win rate couldn't be told: {error}")
        return found | {"problem": str(error)}
    finally:
        reach.close()
    compared = winrate.compare([one.value for one, _ in both], [other.value for _, other in both])
    return found | compared.to_dict() | {"unjudged": len(rows) - len(both)}


def _prompts(held_out: Sequence[Example], *, known: bool) -> list[int]:
    """Where each prompt stands first, for answers to the same one say the same twice; with its right answer if a row has that, and with
    `known` only then."""
    found: dict[str, int] = {}
    for place in sorted(range(len(held_out)), key=lambda place: not held_out[place].expected):
        if held_out[place].expected or not known:
            found.setdefault(json.dumps(held_out[place].prompt), place)
    return sorted(found.values())


def _scores(at: Attempt, parts: Sequence[RewardPart], reach: Reach, examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    encode = at.renderer.encode
    reward = make_reward(_spec(parts), reach, FIELD)
    try:
        rollouts = [
            Rollout(one.prompt, text, one.expected, one.columns, len(encode(text))) for one, text in zip(examples, answers, strict=True)
        ]
        return reward.score(rollouts)
    finally:
        reward.close()


def _spec(parts: Sequence[RewardPart]) -> Reward:
    return Reward(parts=tuple(parts))
