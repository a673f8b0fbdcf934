"""A proposal from what is understood: the recipe in sentences, the reasons for its settings, and what can be changed in it by a click.

Figures, estimates and warnings are the planner's; asks nothing and starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import knowledge
from engine.assistant import by_method
from engine.assistant.desk import Desk, State
from engine.assistant.reply import Choice, Proposal, Reason, Takes, Warned
from engine.assistant.wording import figure
from engine.recipe import Recipe, method_parts

if TYPE_CHECKING:
    from engine.planning import Plan, PlannedStage

_TITLES = {
    "base_model": "Base model", "full": "What is trained", "training.learning_rate": "Learning rate", "training.steps": "Steps",
    "training.epochs": "Epochs", "training.batch_size": "Batch size", "lora.rank": "LoRA rank", "lora.train_mlp": "Layers",
    "training.schedule": "Schedule", "training.max_length": "Longest example", "seed": "Seed", "dpo.beta": "Beta", "dpo.nll": "NLL term",
    "kto.beta": "Beta",
}  # fmt: skip


def proposal(desk: Desk, state: State) -> Proposal:
    """All of it. Raises EngineError for what can't be planned."""
    found = by_method.wanted(desk, state)
    planned = desk.planner.plan(found.recipe)
    changes = dict(state.changes)
    if found.recipe.then and not changes.get("then"):
        # As the wizard keeps stages: the first as the recipe's own fields, what follows behind it.
        said = found.recipe.model_dump(mode="json", exclude_defaults=True)
        kept = {name: one for name, one in changes.items() if name not in ("method", "training", *method_parts())}
        changes = kept | {name: said[name] for name in ("name", "data", "training", "then") if name in said}
    return Proposal(
        recipe=found.recipe.model_dump(mode="json"),
        goal=state.goal or "answer",
        changes=changes,
        summary=_summary(found.recipe, planned, desk.planner.starts().get(found.recipe.start.checkpoint, "")),
        reasons=tuple(_reasons(state, found.recipe, found.reasons)),
        takes=tuple(Takes(one.name, one.text, one.size, one.assumptions) for one in planned.estimates),
        warnings=tuple(Warned(one.level, one.text, one.action) for one in planned.warnings),
    )


def changes_offered(made: Proposal) -> tuple[Choice, ...]:
    """What is often changed, by one click each."""
    steps, batch = Choice("Fewer steps", "Fewer steps"), Choice("Smaller batch", "Smaller batch")
    last = made.recipe["then"][-1] if made.recipe["then"] else made.recipe
    if last.get("method") == "rl":
        kind = (last.get("reward") or made.recipe["reward"])["parts"][0]["kind"]
        other = ("by the same text", "exact") if kind == "numeric" else ("by the right number", "numeric")
        return steps, Choice(f"Score {other[0]}", f"Score {other[0]}"), Choice("By a judge", "Score by a judge with a rubric")
    if last.get("method", "sft") in by_method.IMPROVES and made.recipe["then"]:
        return steps, batch, Choice("Without examples first", "Without examples first")
    if made.recipe["start"]["checkpoint"]:
        return steps, batch, Choice(f"From {made.recipe['base_model']} instead", f"Use {made.recipe['base_model']}")
    if made.recipe["full"]:
        return steps, batch, Choice("With LoRA instead", "Use LoRA")
    return steps, batch, Choice("All weights instead (full fine-tuning)", "Use full fine-tuning")


def value(values: dict[str, Any], name: str) -> Any:
    """A field of nested values by its full name; None where it isn't said."""
    for part in name.split("."):
        if not isinstance(values, dict):
            return None
        values = values.get(part)
    return values


def _summary(recipe: Recipe, planned: Plan, goes_on_from: str) -> tuple[str, ...]:
    learns = "all of its weights" if recipe.full else f"an adapter of rank {recipe.lora.rank} (LoRA)"
    where = "on this machine" if recipe.endpoint == "local" else f"at {recipe.endpoint}"
    lines = [_stage(one, goes_on_from or recipe.base_model, number) for number, one in enumerate(planned.stages)]
    lines.append(f"It trains {learns} at a learning rate of up to {figure(recipe.training.learning_rate)}, {where}.")
    if recipe.evaluation.proof and planned.figures["held_out"]:
        lines.append(f"Before and after, it is tested on {planned.figures['held_out']:,} examples that it never trains on.")
    return tuple(lines)


def _stage(stage: PlannedStage, who: str, number: int) -> str:
    recipe, figures = stage.recipe, stage.figures
    rows, who = f"{figures['train']:,}", who if not number else "Then it" if stage.goes_on else f"Then {who}"
    passes = stage.steps * recipe.training.batch_size / max(1, figures["epoch"])
    often = f"every one about {figure(passes)} times" if passes >= 1 else f"about {100 * passes:.0f} % of them come up"
    replay = f", {figures['replay']:,} of them to keep older skills" if figures["replay"] and not number else ""
    updates = f"in {stage.steps:,} updates of {recipe.training.batch_size} ({often})"
    kinds = {part.kind: knowledge.rewards()[part.kind]["title"].lower() for part in recipe.reward.parts}
    teacher = recipe.distill.teacher or ("itself, with a long prompt" if recipe.distill.teacher_prompt else "a teacher")
    said = {
        "sft": f"learns from {rows} examples{replay}, {updates}",
        "dpo": f"learns from {rows} pairs of a better and a worse answer, {updates}",
        "kto": f"learns from {rows} answers found good or bad, {updates}",
        "reward_model": f"learns to score answers from {rows} {knowledge.shapes()[figures['shape']]['title']}, {updates}",
        "rl": f"tries {recipe.rl.group_size} answers to each of {rows} prompts, scored by {' and '.join(kinds.values())}, {updates}",
        "distill": f"learns from {teacher}, on {rows} prompts, {updates}",
        "own_loss": f"minimises your own function on {rows} examples, {updates}",
    }
    return f"{who} {said[recipe.method]}."


def _reasons(state: State, recipe: Recipe, advised: dict[str, dict[str, Any]]) -> list[Reason]:
    values = recipe.model_dump(mode="json")
    used = knowledge.methods_of(values)
    made = []
    for number, name in enumerate(used):
        method = knowledge.method(name)
        because = method["use_when"][0]
        if name == "sft" and len(used) > 1 and not number:
            because = "It gives the model a first idea of the task, which what follows improves."
        made.append(
            Reason(
                "method" if not number else f"then.{number}", "Method" if not number else "Then", method["term"], because, method["source"]
            )
        )
    if not recipe.full:
        lora = knowledge.terms()["lora"]
        made.append(Reason("full", "What is trained", "an adapter (LoRA)", lora["meaning"], lora["source"]))
    usual = Recipe().model_dump(mode="json")
    for name, title in _TITLES.items():
        now, known = value(values, name), advised.get(name)
        if name == "full" and not recipe.full:
            continue
        if known and now == known["value"]:
            made.append(Reason(name, title, _shown(now), known["reason"], known["source"]))
        elif known:
            told = f"As chosen. Recommended: {_shown(known['value'])}. {known['reason']}"
            made.append(Reason(name, title, _shown(now), told, "", True))
        elif value(state.changes, name) is not None and (now != value(usual, name) or name == "base_model"):
            made.append(Reason(name, title, _shown(now), "As chosen.", "", True))
    for number, stage in enumerate(recipe.then, 1):
        known = knowledge.recommend({}, recipe.base_model, lora=not recipe.full, method=stage.get("method", "sft"))[
            "training.learning_rate"
        ]
        rate = value(stage, "training.learning_rate")
        if rate and rate == known["value"]:
            made.append(
                Reason(f"then.{number}.training.learning_rate", "Its learning rate", figure(rate), known["reason"], known["source"])
            )
    return made


def _shown(now: Any) -> str:
    if isinstance(now, bool):
        return "on" if now else "off"
    return figure(now) if isinstance(now, int | float) else str(now)
