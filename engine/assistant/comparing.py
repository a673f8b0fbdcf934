"""Replies that hold one run or model against another, by what was proven of them, their curves and their settings; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.amounts import duration
from engine.assistant import proven
from engine.assistant.desk import Desk, State, called
from engine.assistant.of_runs import LOSSES, again, steps_of
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.wording import figure, percent, safe
from engine.errors import EngineError
from engine.evaluation import outcome
from engine.jobs import states
from engine.recipe import OF_STAGE

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.store import Job, Model


def compared(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Two that are named against each other, one against its base model, else the last two."""
    if len(meaning.things) > 1:
        (one, model), (other, second) = (desk.thing(*thing) for thing in meaning.things[:2])
        beside = (Action("beside", "Ask both side by side", f"{model.id},{second.id}"),) if model and second else ()
        if one is not None and other is not None and one.id != other.id:
            return _against(desk, [one, other], beside), state
        return _without_runs(meaning, model, second, beside), state
    if meaning.things:
        return _one(desk, meaning), state
    ended = desk.newest((states.DONE, states.STOPPED), 2)
    jobs = ended if len(ended) == 2 else desk.newest(limit=2)
    if len(jobs) < 2:
        have = f"There is only one run, {called(jobs[0])}; two are needed." if jobs else "There is no run yet; two are needed to compare."
        return Reply("compare", have, (again(jobs[0]) if jobs else DEMO,)), state
    return _against(desk, jobs), state


def _against(desk: Desk, jobs: list[Job], more: tuple[Action, ...] = ()) -> Reply:
    """Two runs, and in which settings they differ."""
    last = desk.last([job.id for job in jobs])
    names = [job.name if job.name != jobs[1 - place].name else f"{job.name} ({job.id[:4]})" for place, job in enumerate(jobs)]
    rows = [("proof, before → after", [proven.short(job.result) for job in jobs])]
    rows += [(title, [_figure(last.get(job.id, {}).get(name)) for job in jobs]) for name, title in LOSSES.items()]
    rows += [("steps", [steps_of(job) for job in jobs]), ("time in training", [duration(job.training_seconds) for job in jobs])]
    rows += _differences(desk, jobs)
    facts = tuple({"figure": title, **dict(zip(names, values, strict=True))} for title, values in rows)
    about = ",".join(job.id for job in jobs)
    return Reply("compare", _verdict(jobs), (), (Action("compare", "Their curves over each other", about), *more), facts=facts)


def _without_runs(meaning: Meaning, model: Model | None, second: Model | None, beside: tuple[Action, ...]) -> Reply:
    if model and second and model.id == second.id:
        text = f"That is the same model twice: **{safe(model.name)}**. Against what shall I hold it?"
        return Reply("compare", text, (Choice("Compare my last two runs", "Compare my last two runs"),))
    text = "Of one of them the run is gone, and with it its curves and settings."
    facts = tuple({"model": one.name, "proof": said} for one in (model, second) if one and (said := outcome.short(one.proof)))
    if facts:
        text += " What was proven of them:"
    elif beside:
        text += " Nothing was proven of them; the surest way is to ask both the same."
    return Reply("compare", text, (Choice("Which models do I have?", "Which models do I have?"),), beside, facts=facts)


def _one(desk: Desk, meaning: Meaning) -> Reply:
    """One that is named: against what it was made from, and the others to choose from."""
    job, model = desk.thing(*meaning.things[0])
    name = safe(model.name if model else job.name if job else "")
    about = f"run {job.id}" if job else f"model {model.id}" if model else ""
    others = [other for other in desk.newest((states.DONE, states.STOPPED), 6) if job is None or other.id != job.id][:3]
    choices = tuple(Choice(f"With {other.name[:40]}", f"Compare {about} and run {other.id}") for other in others)
    lines = []
    result = next((one for one in (job and job.result, model and model.proof) if outcome.short(one)), None)
    if found := outcome.headline(result):
        went = f"{found.called} went from {found.was} to **{found.now}** on the same new prompts"
        lines.append(f"Against what **{name}** was made from, {went}.")
    lines += filter(None, [proven.wins(result)])
    if not lines and model:
        lines.append(f"Nothing was proven of **{name}**; ask it and its base model side by side to see what training changed.")
    elif not lines:
        lines.append(f"**{name}** has no model and no proof yet.")
    if choices:
        lines.append("Or hold it against another run:")
    actions = (
        (Action("beside", f"Ask it and {model.base_model[:40]} side by side", f"{model.id},base:{model.base_model}"),) if model else ()
    )
    return Reply("compare", " ".join(lines), choices, actions)


def _verdict(jobs: list[Job]) -> str:
    if not all(outcome.short(job.result) for job in jobs):
        return "Not both have a proof, so only their curves and settings can be compared."
    won = [(job, found) for job in jobs if (found := outcome.judged(job.result))]
    wins = [f"{called(job)} wins {percent(found.rate)} against what its last stage began with." for job, found in won]
    return " ".join([_by_figure(jobs), *wins])


def _by_figure(jobs: list[Job]) -> str:
    """Which is better, by the most telling number that both have."""
    known = [{one.name: one for one in outcome.numbers(job.result) if one.gain is not None} for job in jobs]
    heads = [one.name for job in jobs if (one := outcome.headline(job.result))]
    name = next((name for name in heads if all(name in one for one in known)), "")
    if not name or (name != "exact_match" and _judge(jobs[0]) != _judge(jobs[1])):
        return "They were judged by different things, which can't be held against each other."
    mine, other = (one[name] for one in known)
    if _examples(jobs[0]) != _examples(jobs[1]):
        return f"They were tested on different examples, so how they did ({mine.called}) can't be held against each other."
    apart = outcome.measured(name, other.after, mine.after)
    gain = apart.gain or 0.0
    better, high, low = (jobs[0], mine, other) if gain >= 0 else (jobs[1], other, mine)
    if name == "exact_match":
        return _by_right_answers(jobs, better, abs(gain))
    if not apart.changed:
        return f"Both come out alike: {mine.called} {mine.now} and {other.now}."
    return f"{called(better)} is better: {mine.called} {high.now} against {low.now}."


def _by_right_answers(jobs: list[Job], better: Job, apart: float) -> str:
    if apart < 0.0005:
        return "Both give as many right answers."
    sides = [(job.result or {})["held_out"]["after"] for job in jobs]
    clear = max(side.get("exact_match_low", 0) for side in sides) > min(side.get("exact_match_high", 1) for side in sides)
    sure = "more than chance would explain" if clear else "little enough to be chance: their 95 % intervals overlap"
    return f"{called(better)} is better by {100 * apart:.1f} points, {sure}."


def _examples(job: Job) -> Any:
    """What the proof of a run was made on: the last stage's."""
    try:
        recipe = job.recipe.stages()[-1].recipe
    except EngineError:
        return job.id
    return recipe.data.model_dump(), recipe.seed if not recipe.data.demo else 0


def _judge(job: Job) -> Any:
    """By what a run's answers were scored, where it isn't by right answers. What a run trained to judge itself judges no other."""
    try:
        recipe = job.recipe.stages()[-1].recipe
    except EngineError:
        return job.id
    own = any(part.model.startswith(OF_STAGE) for part in recipe.reward.parts)
    return recipe.method, recipe.reward.model_dump(), recipe.distill.teacher, recipe.distill.teacher_prompt, job.id if own else ""


def _differences(desk: Desk, jobs: list[Job]) -> list[tuple[str, list[str]]]:
    try:
        found = desk.runs.differences([job.id for job in jobs])
    except EngineError:
        return []
    return [(row["field"], [_plain(row["values"][job.id]) for job in jobs]) for row in found[:8]]


def _plain(value: Any) -> str:
    return "–" if value in (None, "", [], {}) else f"{value:g}" if isinstance(value, float) else str(value)[:60]


def _figure(value: float | None) -> str:
    return "–" if value is None else figure(value)
