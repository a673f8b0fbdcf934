"""Replies about runs: how they are, whether they get better, why they failed, how long still, one against another, the best model.

Every figure is read from the store, every judgement is the run doctor's. Changes nothing: pause, stop and resume are actions to click.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import endpoints, knowledge
from engine.amounts import duration
from engine.assistant import proven
from engine.assistant.desk import Desk, State, called
from engine.assistant.going_on import further
from engine.assistant.guiding import key_waited_for
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.wording import figure, safe
from engine.errors import EngineError
from engine.jobs import states

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.store import Job

_CONTROLS = {"pause": "Pause", "stop": "Stop and keep", "resume": "Resume"}


def state_of(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """How a run is: where it stands, what came of it."""
    job = _meant(desk, meaning, state)
    moving = desk.moving()
    if job is None or (not meaning.run and len(moving) > 1 and not state.run):
        return listed(desk, meaning, state)
    return _told(desk, job, meaning.intent), _about(state, job)


def progress(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Whether it gets better: the doctor's findings, and what they rest on."""
    job = _meant(desk, meaning, state)
    if job is None:
        return _nothing_yet(meaning), state
    lines = [_where(desk, job)]
    if said := proven.sentences(job.result):
        lines.append(said)
    if job.state == states.NEEDS_KEY:
        lines.append(key_waited_for(_place(job)))
    elif job.error:
        lines.append(f"It failed: {safe(str(job.error.get('message', '')), 300)}.")
    findings, choices = _doctor(desk, job)
    reply = Reply("progress", " ".join(lines) + findings, (*choices, *_next_choices(job)), (_open(job), *_controls(job)))
    return reply, _about(state, job)


def eta(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """How long still."""
    job = desk.job(meaning.run) or next(iter(desk.moving()), None) or _meant(desk, meaning, state)
    if job is None:
        return _nothing_yet(meaning), state
    left = desk.runs.pace(job).seconds_left
    if job.state == states.QUEUED:
        before = [other for other in desk.moving() if other.id != job.id and other.created_at < job.created_at]
        text = f"{called(job)} hasn't begun: it waits its turn" + (
            f" behind {len(before)} other{'s' * (len(before) > 1)}." if before else "."
        )
    elif left is not None:
        end = " Then the proof is made." if job.recipe.evaluation.proof else ""
        text = f"About **{duration(round(left))}** of training left for {called(job)} (step {job.step:,} of {job.total_steps:,}).{end}"
    elif job.state == states.EVALUATING:
        text = f"{called(job)} has learned all it was to learn and is being tested: that is the last part."
    elif job.state == states.NEEDS_KEY:
        text = f"{called(job)} stands still. {key_waited_for(_place(job))}"
    elif states.moving(job.state):
        text = f"{called(job)} is {states.LIGHTS[job.state].label}; how long it takes is known after the first steps."
    else:
        text = f"Nothing is running. {called(job)} is {states.LIGHTS[job.state].label}."
    return Reply("eta", text, _next_choices(job), (_open(job), *_controls(job))), _about(state, job)


def failure(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What went wrong, and what to do."""
    named = desk.job(meaning.run or state.run)
    failed = named if named and named.error else next(iter(desk.newest((states.FAILED,), 1)), None)
    if failed is None:
        job = named or _meant(desk, meaning, state)
        if job is None:
            return _nothing_yet(meaning), state
        findings, choices = _doctor(desk, job)
        return Reply("failure", f"None of your runs has failed. {_where(desk, job)}{findings}", choices, (_open(job),)), _about(state, job)
    error = failed.error or {}
    lines = [f"{called(failed)} failed: {safe(str(error.get('message', '')), 300)}."]
    if error.get("where"):
        lines.append(f"Where: {safe(str(error['where']), 160)}.")
    if error.get("next_step"):
        lines.append(f"\n\n**What to do:** {safe(str(error['next_step']), 300)}")
    return Reply("failure", " ".join(lines), (again(failed),), (_open(failed), *_controls(failed))), _about(state, failed)


def listed(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The newest runs in a table."""
    jobs = desk.newest(limit=8)
    if not jobs:
        return _nothing_yet(meaning), state
    counts = {group: count for group, count in desk.runs.counts().items() if count}
    said = ", ".join(f"{count:,} {group}" for group, count in counts.items())
    rows = tuple(
        {"run": job.name, "state": states.LIGHTS[job.state].label, "steps": steps_of(job), "proof": proven.short(job.result)}
        for job in jobs
    )
    more = "" if sum(counts.values()) <= len(rows) else f" The newest {len(rows)}:"
    choices = tuple(Choice(f"How is {job.name[:40]}?", f"How is run {job.id}?") for job in (desk.moving() or jobs)[:3])
    reply = Reply(meaning.intent, f"Your runs: {said}.{more}", choices, (Action("runs", "All runs"),), facts=rows)
    return reply, State(**{**state.to_dict(), "shown": [{"kind": "run", "id": job.id} for job in jobs]})


def gone(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A run by an id that none of the person's has."""
    text = "You have no run of that id; it may have been deleted."
    return Reply(meaning.intent, text, (Choice("Which runs are there?", "List my runs"),), (Action("runs", "All runs"),)), state


def control(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Pause, stop or resume: a button for each run that it can be asked of."""
    asked = meaning.intent
    able = [job for job in desk.newest(limit=60) if asked in states.requests(job.state)]
    if asked == "stop":
        able = [job for job in able if states.moving(job.state)] or able
    named = [job for job in able if job.id in (meaning.run, "" if meaning.run else state.run)]
    shown = (named or ([] if meaning.run else able))[:4]
    if asked == "resume" and not named:
        shown = shown[:3]
    if not shown:
        job = desk.job(meaning.run)
        if asked == "resume" and job is not None and desk.thing(job.id, "")[1] is not None:
            return further(desk, meaning, state)
        if job is not None:
            text = f"{called(job)} is {states.LIGHTS[job.state].label}; that can't be done now."
        else:
            text = "No run is paused or was stopped." if asked == "resume" else "Nothing is running."
        return Reply(asked, text, (Choice("Which runs are there?", "List my runs"),)), state
    what = {
        "pause": "Pausing acts within a step and saves what was learned; you can resume it whenever you like.",
        "stop": "Stopping ends the run here, and keeps what it has learned as a model.",
        "resume": "It goes on from its last checkpoint.",
    }[asked]
    actions = tuple(Action(asked, f"{_CONTROLS[asked]}: {job.name[:40]}", job.id) for job in shown)  # type: ignore[arg-type]
    return Reply(asked, f"{what} Press the button if you mean it.", (), actions), _about(state, shown[0])


def figure_now(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The newest value of what is asked for, where it began, and what it means."""
    job = _meant(desk, meaning, state)
    if job is None:
        return _nothing_yet(meaning), state
    entries = [(name, knowledge.terms()[name]) for name in meaning.topics]
    wanted = {str(entry["metric"]): name for name, entry in entries if entry.get("metric")}
    wanted = {(name if name != "loss" else "train_loss"): term for name, term in wanted.items()} or {"train_loss": "loss"}
    if "train_loss" in wanted or "held_out_loss" in wanted:
        # One without the other says little.
        wanted |= {name: wanted.get(name, "loss") for name in LOSSES}
    lines = []
    for name in wanted:
        curve = desk.store.curve(job.id, name, owner=desk.owner)
        if curve:
            title, (first, was), (step, value) = knowledge.metric(name)["title"].lower(), curve[0], curve[-1]
            began = f", from {figure(was)} at step {first:,}" if step != first else ""
            lines.append(f"- **{title}: {figure(value)}** at step {step:,}{began}")
    if not lines and (said := proven.sentences(job.result)):
        lines.append(said)
    if not lines:
        lines.append("It has reported nothing of that yet." if states.moving(job.state) else "It reported nothing of that.")
    findings, choices = _doctor(desk, job) if job.step else ("", ())
    text = f"{called(job)} is {states.LIGHTS[job.state].label}.\n\n" + "\n".join(lines) + findings
    explain = tuple(Choice(f"What does {name} mean?", f"What is {name}?") for name in dict.fromkeys(wanted.values()))[:2]
    return Reply("figure", text, (*explain, *choices, *_next_choices(job)[:1]), (_open(job), *_controls(job))), _about(state, job)


LOSSES = {"train_loss": "training loss", "held_out_loss": "held-out loss"}


def _told(desk: Desk, job: Job, intent: str) -> Reply:
    lines = [_where(desk, job)]
    if said := proven.sentences(job.result):
        lines.append(said)
    if job.state == states.NEEDS_KEY:
        lines.append(key_waited_for(_place(job)))
    elif job.error:
        lines.append(f"{safe(str(job.error.get('message', '')), 300)}. {safe(str(job.error.get('next_step', '')), 300)}")
    findings, choices = _doctor(desk, job) if job.step else ("", ())
    actions: list[Action] = [_open(job)]
    if job.state in (states.DONE, states.STOPPED):
        actions += [Action("chat", "Chat with it", model.id) for model in desk.store.models(desk.owner, job_id=job.id)[:1]]
    return Reply(intent, " ".join(lines) + findings, (*choices, *_next_choices(job)), (*actions, *_controls(job)))


def _where(desk: Desk, job: Job) -> str:
    light, pace = states.LIGHTS[job.state].label, desk.runs.pace(job)
    parts = [f"{called(job)} is {light}"]
    if job.total_steps and job.state != states.DONE:
        parts.append(f"step {job.step:,} of {job.total_steps:,}")
    elif job.state == states.DONE:
        parts.append(f"{job.step:,} steps in {duration(job.training_seconds)} of training")
    if pace.seconds_left is not None and states.moving(job.state):
        parts.append(f"about {duration(round(pace.seconds_left))} left")
    if pace.tokens_per_second and job.state in states.ACTIVE:
        parts.append(f"{pace.tokens_per_second:,.0f} tokens a second")
    last = desk.last([job.id]).get(job.id, {})
    parts += [f"{title} {figure(last[name])}" for name, title in LOSSES.items() if name in last]
    return ", ".join(parts) + "."


def _doctor(desk: Desk, job: Job) -> tuple[str, tuple[Choice, ...]]:
    """(its findings as a list, another try for those that say what to change)."""
    try:
        found = desk.findings(job)
    except EngineError:
        # A recipe of another version: its figures can be told all the same.
        return "", ()
    lines, choices = [], []
    for finding in found[:3]:
        lines.append(f"- **{safe(finding.sign, 200)}** {safe(finding.detail, 300)} {safe(finding.action, 300)}".rstrip())
        training = finding.changes.get("training", {})
        if not states.moving(job.state) and (rate := training.get("learning_rate")):
            choices.append(
                Choice(f"Again with a learning rate of {rate:.2g}", f"Train run {job.id} again with a learning rate of {rate:.3g}")
            )
        elif not states.moving(job.state) and (steps := training.get("steps")):
            choices.append(Choice(f"Again with {steps:,} steps", f"Train run {job.id} again with {steps} steps"))
    return "\n\nThe run doctor says:\n" + "\n".join(lines), tuple(dict.fromkeys(choices))


def _meant(desk: Desk, meaning: Meaning, state: State) -> Job | None:
    """The run that is named, else the one talked of, else what runs, else the newest."""
    return desk.job(meaning.run) or desk.job(state.run) or next(iter(desk.moving() or desk.newest(limit=1)), None)


def _nothing_yet(meaning: Meaning) -> Reply:
    return Reply(meaning.intent, "There is no run yet. The demo is the quickest way to see one: about a minute, nothing to bring.", (DEMO,))


def _next_choices(job: Job) -> tuple[Choice, ...]:
    if states.moving(job.state):
        return (Choice("How long still?", "How long still?"), Choice("What does the loss mean?", "What does the loss mean?"))
    return (again(job), Choice("Compare my last two runs", "Compare my last two runs"))


def again(job: Job) -> Choice:
    """The same once more, to click."""
    return Choice("Train it again", f"Train run {job.id} again")


def _open(job: Job) -> Action:
    return Action("run", "Watch it learn" if states.moving(job.state) else "Open the run", job.id)


def _controls(job: Job) -> tuple[Action, ...]:
    possible = states.requests(job.state)
    if job.state == states.NEEDS_KEY:
        return (Action("settings", "Give the key"),)
    wanted = ("pause", "stop") if states.moving(job.state) else ("resume",) if job.state != states.STOPPED else ()
    return tuple(Action(name, _CONTROLS[name], job.id) for name in wanted if name in possible)  # type: ignore[arg-type]


def _about(state: State, job: Job) -> State:
    return State(**{**state.to_dict(), "run": job.id})


def steps_of(job: Job) -> str:
    """How far it is."""
    return f"{job.step:,} of {job.total_steps:,}" if job.total_steps else f"{job.step:,}"


def _place(job: Job) -> str:
    """What its endpoint is called; its own name for one that isn't known any more."""
    known = job.endpoint in endpoints.names(job.owner)
    return endpoints.kind(job.endpoint, job.owner).title if known else job.endpoint
