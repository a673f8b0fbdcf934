"""Who wins: the answers of what was trained against those of what its last stage began with, prompt by prompt, by a judge.

The judge is what `evaluation.judge` says, else the right answers. It scores each answer by itself, so no order can sway it. Knows no
method; what it says of both sides is compared elsewhere (engine.evaluation.winrate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.data.examples import Example
from engine.errors import EndpointLost, EngineError
from engine.evaluation import winrate
from engine.recipe import Recipe, Reward, RewardPart
from engine.training.reach import Reach
from engine.training.rewards import Rollout, labels, make_reward, needs_endpoint
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
    """The win rate, JSON-ready: wins, ties, losses, rate, low, high, count, `judge` (what it went by) and `against` ("start", or "stage"
    where stages came before). None without both sides or a judge, with `problem` where the judge failed. Raises Asked for a pause or a
    stop, EndpointLost. `ask` has a sampler answer examples."""
    judge = at.run.recipe.evaluation.judge
    parts = judge or (RewardPart(),)
    rows = [place for place, example in enumerate(at.work.data.held_out) if judge or example.answer]
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
            scores = _scores(at, parts, reach, examples, [after["answers"]["held_out"][place] for place in rows])
            others = _scores(at, parts, reach, examples, theirs)
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
    return found | winrate.compare(scores, others).to_dict()


def _scores(at: Attempt, parts: Sequence[RewardPart], reach: Reach, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
    encode = at.renderer.encode
    reward = make_reward(_spec(parts), reach, FIELD)
    try:
        rollouts = [
            Rollout(one.prompt, text, one.answer, one.columns, len(encode(text))) for one, text in zip(examples, answers, strict=True)
        ]
        return [score.value for score in reward.score(rollouts)]
    finally:
        reward.close()


def _spec(parts: Sequence[RewardPart]) -> Reward:
    return Reward(parts=tuple(parts))
