"""`engine.next_steps`: what a person would sensibly do next, and why.

The rules are one pure function over runs and what else lies about: what moves is watched, what came to grief is looked at, what was
paused goes on, what was begun is finished, what was learned is tried, then own data. The class feeds it from the store. Starts nothing
and draws nothing; which button a kind of step becomes is the screen's business.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from engine import knowledge
from engine.drafts import Drafts
from engine.evaluation import outcome
from engine.evaluation.curves import Curve
from engine.jobs import states
from engine.runs import MOVING, Runs

if TYPE_CHECKING:
    from engine.drafts import Draft
    from engine.store import Job, LibrarySet, Store

FORTNIGHT = 14 * 86400.0
_LONG_WAIT = 60.0
_LOOKED_INTO = 3
_RUNS, _CHATS, _SETS = 60, 200, 20

Kind = Literal["watch", "look", "resume", "draft", "improve", "chat", "check", "train_on", "demo", "own"]


@dataclass(frozen=True)
class NextStep:
    """`about` is what it concerns: a run's id (watch, look, resume, improve, chat), a data set's (check, train_on), a demo's name."""

    kind: Kind
    title: str
    reason: str
    about: str = ""


def next_steps(
    jobs: Sequence[Job],
    demos: Mapping[str, Mapping[str, Any]],
    now: float | None = None,
    *,
    draft: Draft | None = None,
    untouched: Sequence[LibrarySet] = (),
    talked_to: Collection[str] = (),
    advice: Mapping[str, str] | None = None,
) -> list[NextStep]:
    """Most sensible first; never empty as long as there is a demo.

    `jobs` newest first. `untouched` are data sets that no run has learned from, `talked_to` the ids of runs whose model was chatted
    with, `advice` what the run doctor says of a run, by id. Runs that came to rest more than a fortnight ago are left in peace.
    """
    now = time.time() if now is None else now
    advice = advice or {}
    recent = [job for job in jobs if job.state in MOVING or now - (job.finished_at or job.created_at) < FORTNIGHT]
    moving = [job for job in recent if job.state in MOVING]
    steps = [_watch(job, moving, now) for job in sorted(moving, key=lambda job: job.state == states.QUEUED)]
    better = _outdone(recent)
    steps += [_look(job, advice.get(job.id, "")) for job in recent if job.state == states.FAILED and job.id not in better]
    steps += [_resume(job) for job in recent if job.state == states.PAUSED]
    if draft is not None and draft.goal:
        steps.append(_draft(draft))
    ended = [job for job in recent if job.result and job.state in (states.DONE, states.STOPPED) and job.id not in better]
    weak = {job.id: reason for job in ended if (reason := shortcoming(job.result))}
    steps += [_improve(job, advice.get(job.id) or weak[job.id]) for job in ended if job.id in weak]
    steps += [_chat(job) for job in ended if job.id not in weak and job.id not in talked_to]
    steps += [_data(found) for found in untouched]
    used = {job.recipe.data.demo for job in jobs if _readable(job)}
    if not jobs and demos:
        name, demo = next(iter(demos.items()))
        steps.append(
            NextStep("demo", f"Try it: {demo['title']}", "Nothing to bring and nothing to set: about a minute on this machine.", name)
        )
    steps.append(NextStep("own", "Train on your own data", "A file of questions with good answers is all that it takes."))
    steps += [
        NextStep("demo", str(demo["title"]), "Another thing that the small model can learn in about a minute.", name)
        for name, demo in demos.items()
        if jobs and name not in used
    ][:1]
    return steps


def shortcoming(result: Mapping[str, Any] | None) -> str:
    """Why a proof doesn't convince; empty where it does, or where nothing was proven."""
    held_out = (result or {}).get("held_out") or {}
    before, after = held_out.get("before"), held_out.get("after")
    if not before or not after:
        return ""
    surprise = before.get("perplexity"), after.get("perplexity")
    surer = None not in surprise and surprise[1] < 0.98 * surprise[0]
    found = outcome.headline(result)
    if found is not None and (found.gain or 0.0) <= 0 and not surer:
        return "It isn't better than before on prompts that it had never seen: more or cleaner examples, or more updates, may help."
    skills = (result or {}).get("skills") or {}
    if skills.get("before") and skills.get("after") is not None and skills["after"] < 0.8 * skills["before"]:
        flag = knowledge.metric("skills")["red_flags"][0]
        return f"It learned, but forgot much of what it could do. {flag['action']}"
    return ""


def _outdone(jobs: Sequence[Job]) -> set[str]:
    """Runs that a later one of the same name stands in for: it got there, or is on its way."""
    found: set[str] = set()
    ahead: set[str] = set()
    for job in jobs:
        if job.name in ahead:
            found.add(job.id)
        if job.state in (states.DONE, *MOVING):
            ahead.add(job.name)
    return found


def _watch(job: Job, moving: Sequence[Job], now: float) -> NextStep:
    if job.state == states.QUEUED and now - job.created_at > _LONG_WAIT:
        before = [other for other in moving if other.state != states.QUEUED]
        why = f"It begins after “{before[-1].name}”." if before else "It has waited for more than a minute: its log says for what."
        return NextStep("watch", f"See what “{job.name}” waits for", why, job.id)
    doing = states.LIGHTS[job.state].label
    more = ": see its mistakes get fewer and its answers change" if job.state == states.TRAINING else ""
    return NextStep("watch", f"Watch “{job.name}”", f"It is {doing}{more}.", job.id)


def _look(job: Job, advice: str) -> NextStep:
    error = job.error or {}
    told = " ".join(part for part in (_sentence(error.get("message", "")), advice or error.get("next_step", "")) if part)
    return NextStep("look", f"See why “{job.name}” failed", told or "Its log has the details.", job.id)


def _resume(job: Job) -> NextStep:
    return NextStep(
        "resume", f"Go on with “{job.name}”", f"It was paused at step {job.step:,} of {job.total_steps:,}; nothing is lost.", job.id
    )


def _draft(draft: Draft) -> NextStep:
    goal = knowledge.goals().get(draft.goal, {})
    what = f"“{goal['title']}” is" if goal else "It is"
    return NextStep("draft", "Finish the training you began", f"{what} put together as far as step {draft.reached + 1} of 5.")


def _improve(job: Job, reason: str) -> NextStep:
    return NextStep("improve", f"Make “{job.name}” better", reason, job.id)


def _chat(job: Job) -> NextStep:
    return NextStep("chat", f"Talk to “{job.name}”", "It is trained, and you haven't tried it yet.", job.id)


def _data(found: LibrarySet) -> NextStep:
    if found.state == "unmapped":
        return NextStep(
            "check", f"Say what is what in “{found.name}”", "Its columns couldn't be told apart as questions and answers.", found.id
        )
    if found.state == "check":
        rows = f"{found.left_out:,} {'row' if found.left_out == 1 else 'rows'}"
        return NextStep("check", f"Check “{found.name}”", f"{rows} of it can't be used as they are; {found.examples:,} can.", found.id)
    return NextStep("train_on", f"Train on “{found.name}”", f"Nothing has learned from its {found.examples:,} examples yet.", found.id)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text + "." if text and not text.endswith((".", "!", "?")) else text


def _readable(job: Job) -> bool:
    try:
        return bool(job.recipe)
    except ValueError:
        # Written by another version: what it learned from can't be told.
        return False


class NextSteps:
    """The same for one owner, from the store."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._runs = Runs(store, owner)
        self._advice: dict[tuple[str, int], str] = {}

    def find(self, now: float | None = None) -> list[NextStep]:
        """Most sensible first."""
        store, owner = self._store, self._owner
        now = store.now() if now is None else now
        jobs = store.jobs(owner, limit=_RUNS)
        sets = [found for found in store.datasets(owner, "")[:_SETS] if now - found.created_at < FORTNIGHT]
        return next_steps(
            jobs,
            knowledge.demos(),
            now,
            draft=Drafts(store, owner).get(),
            untouched=[found for found in sets if not store.jobs_on_dataset(found.id, owner, limit=1)],
            talked_to=self._talked_to(jobs),
            advice={job.id: said for job in self._in_doubt(jobs, now) if (said := self._doctor(job))},
        )

    def _talked_to(self, jobs: Sequence[Job]) -> set[str]:
        """The runs whose model or checkpoint somebody has chatted with."""
        refs = {ref for chat in self._store.conversations(self._owner, limit=_CHATS) for ref in chat.setup.get("speakers", [])}
        by_model = {model.id: model.job_id for model in self._store.models(self._owner)}
        return {found for ref in refs if (found := by_model.get(ref) or ref.partition("@")[0])} & {job.id for job in jobs}

    def _in_doubt(self, jobs: Sequence[Job], now: float) -> list[Job]:
        """The latest runs that failed or didn't convince; older ones aren't worth reading whole curves for."""
        found = [job for job in jobs if now - (job.finished_at or job.created_at) < FORTNIGHT]
        found = [job for job in found if job.state == states.FAILED or (job.state in states.FINAL and shortcoming(job.result))]
        return found[:_LOOKED_INTO]

    def _doctor(self, job: Job) -> str:
        """The gravest thing that the run doctor found in its curves; empty where nothing is wrong. A run at rest is read once."""
        key = job.id, job.attempt
        if key not in self._advice:
            curves = {name: Curve(points) for name, points in self._runs.news(job.id, {}).items()}
            grave = [found for found in self._runs.diagnose(job, curves) if found.level in ("stop", "warning")] if _readable(job) else []
            while len(self._advice) >= 4 * _LOOKED_INTO:
                del self._advice[next(iter(self._advice))]
            self._advice[key] = f"{grave[0].detail} {grave[0].action}" if grave else ""
        return self._advice[key]
