"""What a recipe's reward says of answers that are known to be right: if these score no better than nonsense, nothing can be learned."""

from __future__ import annotations

from statistics import fmean

from engine.data.examples import DataSet
from engine.recipe import OF_STAGE, Recipe
from engine.rehearsing.report import Found, Report
from engine.store import Store
from engine.training.rewards import Rollout, make_reward
from engine.training.rewards.asking import Asker

_ROWS = 8
_NONSENSE = "Ünrelated: 7f3 qq"


def own_answers(report: Report, store: Store, owner: str, recipe: Recipe, stage: int, data: DataSet) -> None:
    """The stage's reward on the rows' own answers and on nonsense. Models that an earlier stage trains aren't there yet: those wait."""
    spec = recipe.reward
    if any(part.model.startswith(OF_STAGE) for part in spec.parts):
        return

    def work() -> Found:
        answered = [example for example in data.train if example.answer and example.kind == "task"][:_ROWS]
        rows = answered or [example for example in data.train if example.kind == "task"][:_ROWS]
        reward = make_reward(spec, Asker(store, owner))
        try:
            wrong = [Rollout(example.prompt, _NONSENSE, example.answer, example.columns, 8) for example in rows]
            if not answered:
                low = fmean(score.value for score in reward.score(wrong))
                return Found(f"nonsense scores {low:.3g} on average; the rows hold no answers to score beside it")
            right = [Rollout(one.prompt, one.answer, one.answer, one.columns, len(one.answer.split())) for one in answered]
            scores = reward.score([*right, *wrong])
        finally:
            reward.close()
        good, bad = scores[: len(right)], scores[len(right) :]
        high, low = fmean(score.value for score in good), fmean(score.value for score in bad)
        report.rewards.append({"stage": stage, "right": round(high, 4), "nonsense": round(low, 4)})
        told = f"the rows' own answers score {high:.3g} on average, nonsense {low:.3g}"
        if high > low:
            return Found(told)
        worst = min(good, key=lambda score: score.value)
        note = f" ({worst.note})" if worst.note else ""
        return Found(f"{told}: it can't tell them apart{note}", "care", "Test-run the reward and correct its parts.", "recipe reward.parts")

    report.look("reward", "The reward tells right from wrong", work, stage)
