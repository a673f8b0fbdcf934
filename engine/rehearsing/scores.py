"""What a recipe's reward says of the rows' own answers and of other rows': if it can't tell them apart, nothing can be learned."""

from __future__ import annotations

from statistics import fmean

from engine.data.examples import DataSet
from engine.recipe import OF_STAGE, Recipe
from engine.rehearsing.report import Found, Report
from engine.rewards import OTHER, OWN, Rewards
from engine.store import Store

_ROWS = 8


def own_answers(report: Report, store: Store, owner: str, recipe: Recipe, stage: int, data: DataSet) -> None:
    """Models that an earlier stage trains aren't there yet: rewards by these wait for the small run, and so do rows without answers."""
    if any(part.model.startswith(OF_STAGE) for part in recipe.reward.parts):
        return
    if not any(example.answer.strip() for example in data.train if example.kind == "task"):
        return

    def work() -> Found:
        checked = Rewards(store, owner).check(recipe.model_dump(mode="json"), rows=_ROWS)
        by_source = {source: [one.score.value for one in checked.scored if one.source == source] for source in (OWN, OTHER)}
        means = {source: fmean(values) for source, values in by_source.items() if values}
        report.rewards.append(
            {"stage": stage, "own": means.get(OWN), "other": means.get(OTHER), "calls": checked.calls, "step_seconds": checked.step_seconds}
        )
        told = ", ".join(f"{source} scores {mean:.3g}" for source, mean in means.items())
        text = f"on average {told}; scoring a step takes about {checked.step_seconds:.2g} s"
        if checked.warnings:
            return Found(f"{text}. {checked.warnings[0]}", "care", "Test-run the reward and correct its parts.", "recipe reward.parts")
        return Found(text)

    report.look("reward", "What the reward says", work, stage)
