"""Teaching by correcting: answers of a chat that a person corrected, and lessons, which are micro-runs on them that can be undone.

A lesson prepares (the model says what it would keep), learns (a job like any other), then is asked the corrected prompts again; the
conversation goes on with the newer version. All of it is in the store, so it lives through F5 and restarts. Nothing is deleted
unless a person says so. What is somebody else's raises NotFound.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from engine import endpoints, guard, lessons, models, paths, policy, starts
from engine.errors import EngineError, NotFound, StateError
from engine.evaluation.metrics import exact_match
from engine.jobs import host, states
from engine.library import Library
from engine.playground import Playground, Speaker
from engine.store import Correction, Job, Lesson, LibrarySet, Store

_log = logging.getLogger("thinker.teaching")
_MOST = 20_000
_SHORT = 128  # tokens of an answer by which it is seen what became of older lessons and skills
_PREPARING = "asking it what it would keep"
_STALE_S = 60.0
UNDER_WAY = ("preparing", "learning")


@dataclass(frozen=True)
class Case:
    """One corrected prompt in a lesson. `answer` is what was said before, `after` since; `right`: as corrected, or nearly so."""

    correction_id: str
    messages: list[dict[str, str]]
    answer: str
    correction: str
    after: str | None = None
    right: bool | None = None

    @property
    def prompt(self) -> str:
        """What was asked last."""
        return self.messages[-1]["content"]

    def judged(self) -> dict[str, Any]:
        """As it is kept with the model."""
        return lessons.judged(self.messages, self.answer, self.after or "", self.correction)


@dataclass(frozen=True)
class Progress:
    """Where a lesson stands: what it is busy with, and the share that is done."""

    stage: str
    fraction: float
    job: Job | None = None


class Teaching:
    """One person's corrections and lessons."""

    def __init__(self, store: Store, owner: str, playground: Playground):
        self._store, self._owner, self._playground = store, owner, playground
        self._library = Library(store, owner)
        self._lock = threading.Lock()
        self._busy: dict[str, str] = {}

    # -- corrections

    def correct(self, conversation_id: str, turn_id: int, side: int, text: str) -> Correction:
        """Keeps what should have been said; again for the same answer, the newer text counts. Raises NotFound and StateError."""
        messages, answer = self._playground.answered(conversation_id, turn_id, side)
        text = _checked(text)
        if exact_match(text, answer["text"]):
            raise StateError("that is what it said", "Change the answer to what it should have said.")
        # What learns takes a moment to start: it can do so while more is corrected.
        host.ensure_runner()
        values = {"turn_id": turn_id, "side": side, "speaker": answer["speaker"], "messages": messages}
        return self._store.save_correction(conversation_id, {**values, "answer": answer["text"], "correction": text}, self._owner)

    def tray(self, conversation_id: str) -> list[Correction]:
        """Those that wait to be learned, oldest first. Raises NotFound."""
        return [found for found in self.corrections(conversation_id) if found.lesson_id is None]

    def corrections(self, conversation_id: str) -> list[Correction]:
        """All of them, taught or not. Raises NotFound."""
        return self._store.corrections(conversation_id, self._owner)

    def remove(self, correction_id: str) -> None:
        """Raises NotFound."""
        self._store.delete_correction(correction_id, self._owner)

    def pairs(self, conversation_id: str) -> list[dict[str, Any]]:
        """As preference methods want them: {prompt: messages, chosen: the correction, rejected: what was said}. Raises NotFound."""
        told = self.corrections(conversation_id)
        return [{"prompt": found.messages, "chosen": found.correction, "rejected": found.answer} for found in told]

    def save_as_dataset(self, conversation_id: str, name: str = "") -> LibrarySet:
        """All corrections as a data set of the library, with the rejected answers beside. Raises NotFound, StateError and DataError."""
        conversation = self._playground.conversation(conversation_id)
        told = self.corrections(conversation_id)
        if not told:
            raise StateError("there is nothing corrected in this chat", "Correct an answer first.")
        rows = [{"messages": [*one.messages, _said(one.correction)], "rejected": one.answer} for one in told]
        # Where it had said nothing there is no worse answer to learn from.
        layout = "rejected_message" if all(one.answer.strip() for one in told) else "messages"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        title = " ".join((name or f"Corrections of {conversation.title}").replace("/", " ").replace("\\", " ").split())[:100]
        return self._library.add(f"{title}.jsonl", text.encode("utf-8", "replace"), format=layout)

    # -- lessons

    def teachable(self, speaker: Speaker) -> bool:
        """Whether it can learn: a base model can, and what was kept with the weights to go on from."""
        try:
            return speaker.kind == "base" or bool(starts.find(self._store, self._owner, speaker.ref))
        except EngineError:
            return False

    def learn(self, conversation_id: str, speaker_ref: str) -> Lesson:
        """Begins to teach what is in the tray, and returns at once. Raises NotFound and StateError."""
        speaker = self._playground.speaker(speaker_ref)
        with self._lock:
            told = self.tray(conversation_id)
            if not told:
                raise StateError("there is nothing to learn", "Correct an answer first.")
            if any(lesson.state in UNDER_WAY for lesson in self.lessons(conversation_id)):
                raise StateError("a lesson is under way in this chat", "Wait for its end.")
            guard.turn(self._store, self._owner)
            guard.room(self._store, self._owner)
            guard.key(self._owner, speaker.endpoint)
            if speaker.kind != "base":
                starts.find(self._store, self._owner, speaker.ref)
            # Of two that correct the same prompt, the newer counts.
            newest = {json.dumps(one.messages): one for one in sorted(told, key=lambda one: one.updated_at)}
            cases = [asdict(Case(one.id, one.messages, one.answer, one.correction)) for one in newest.values()]
            lesson = self._store.begin_lesson(conversation_id, speaker.ref, cases, self._owner)
            self._busy[lesson.id] = _PREPARING
        self._on_a_thread(lesson.id, lambda: self._prepare(lesson, speaker, list(newest.values())))
        return lesson

    def lessons(self, conversation_id: str) -> list[Lesson]:
        """Oldest first. Raises NotFound."""
        self._playground.conversation(conversation_id)
        return self._store.lessons(self._owner, conversation_id)

    def look(self, lesson_id: str) -> tuple[Lesson, Progress]:
        """The lesson as it stands; one whose run has ended is brought to its end, in the background. Raises NotFound."""
        lesson = self._store.lesson(lesson_id, self._owner)
        if lesson.state not in UNDER_WAY:
            return lesson, Progress(lesson.state, 1.0)
        if lesson.state == "preparing":
            if lesson.id not in self._busy and time.time() - lesson.created_at > _STALE_S:
                error = StateError("the dashboard ended while the lesson was prepared", "Press Learn again.")
                lesson = self._failed(lesson, error)
            return lesson, Progress(self._busy.get(lesson.id, _PREPARING), 0.05)
        try:
            job = self._store.find_job(lesson.job_id, self._owner)
        except NotFound:
            return self._failed(lesson, StateError("the run of this lesson was deleted", "Press Learn again.")), Progress("", 1.0)
        if job.state in (states.DONE, states.STOPPED):
            self._conclude(lesson, job)
            return self._store.lesson(lesson.id, self._owner), Progress(self._busy.get(lesson.id, "asking it again"), 0.95, job)
        if job.state == states.FAILED:
            told = EngineError.from_dict(job.error) if job.error else StateError("the run of this lesson failed", "Press Learn again.")
            return self._failed(lesson, told), Progress("", 1.0, job)
        if self._store.has_work(job_id=job.id):
            host.ensure_runner()
        stage = job.stage or states.LIGHTS[job.state].label
        if job.state == states.TRAINING and job.step:
            stage = f"learning, update {job.step} of {job.total_steps}"
        return lesson, Progress(stage, 0.15 + 0.75 * job.fraction, job)

    def wait(self, lesson_id: str, seconds: float = 120.0) -> Lesson:
        """For scripts: looks until it has ended. Raises StateError where that takes longer."""
        deadline = time.monotonic() + seconds
        while (lesson := self.look(lesson_id)[0]).state in UNDER_WAY:
            if time.monotonic() > deadline:
                raise StateError(f"the lesson is still {lesson.state}", "Look at it later.")
            time.sleep(0.05)
        return lesson

    def cases(self, lesson: Lesson) -> list[Case]:
        """Its corrected prompts, with the answers before and after."""
        return [Case(**case) for case in lesson.cases]

    def undo(self, lesson_id: str) -> Lesson:
        """Back to the version before; its corrections wait again, and the newer model stays until it is deleted. Only the newest lesson
        of a chat can be undone. Raises NotFound and StateError."""
        lesson = self._store.lesson(lesson_id, self._owner)
        learned = [one for one in self.lessons(lesson.conversation_id) if one.state == "learned"]
        if not learned or learned[-1].id != lesson.id:
            raise StateError("only the newest lesson of a chat can be undone", "Undo the newer ones first.")
        try:
            self._playground.speaker(lesson.taught)
        except NotFound as error:
            raise StateError("the version before is gone", "Choose another model above.") from error
        undone = self._store.change_lesson(lesson.id, self._owner, only_in="learned", state="undone", gives_back=True)
        self._go_on_with(lesson.conversation_id, lesson.learned, lesson.taught)
        return undone

    # -- inside

    def _on_a_thread(self, lesson_id: str, work: Any) -> None:
        def carry_out() -> None:
            try:
                work()
            except EngineError as error:
                self._failed(self._store.lesson(lesson_id, self._owner), error)
            except Exception as error:
                _log.exception("a lesson failed")
                wrapped = StateError(f"the lesson failed: {type(error).__name__}: {error}", "Press Learn again.")
                self._failed(self._store.lesson(lesson_id, self._owner), wrapped)
            finally:
                self._busy.pop(lesson_id, None)

        threading.Thread(target=carry_out, name="lesson", daemon=True).start()

    def _prepare(self, lesson: Lesson, speaker: Speaker, told: list[Correction]) -> None:
        size = lessons.size_for(speaker.base_model, len(told))
        turns = self._store.turns(lesson.conversation_id, self._owner)
        corrected = {one.messages[-1]["content"] for one in told}
        prompts = lessons.anchor_prompts(self._store, self._owner, speaker, turns, corrected, size["anchors"])
        said = lessons.own_answers(self._endpoint(speaker, lesson.id), speaker, prompts, size["anchor_tokens"])
        anchors = [(messages, answer) for messages, answer in zip(prompts, said, strict=True) if answer.strip()]
        file = paths.folder("lessons", lesson.id) / "corrections.jsonl"
        lessons.write_rows(file, told, anchors, size)
        name = lessons.next_version(speaker.name, {model.name for model in self._store.models(self._owner)})
        recipe = lessons.recipe(self._store, self._owner, speaker, file, name, len(told))
        job = self._store.create_job(recipe, self._owner, token=f"lesson:{lesson.id}", most=policy.of(self._owner).most_jobs)
        self._store.change_lesson(lesson.id, self._owner, only_in="preparing", state="learning", job_id=job.id)
        host.ensure_runner()

    def _conclude(self, lesson: Lesson, job: Job) -> None:
        with self._lock:
            if lesson.id in self._busy:
                return
            self._busy[lesson.id] = "asking it again"
        self._on_a_thread(lesson.id, lambda: self._ask_again(lesson, job))

    def _ask_again(self, lesson: Lesson, job: Job) -> None:
        made = self._store.models(self._owner, job_id=job.id)
        if not made:
            raise StateError("the lesson was stopped before it had learned anything", "Press Learn again.")
        speaker = self._playground.speaker(made[0].id)
        cases = self.cases(lesson)
        longest = max(len(case.correction) for case in cases) + 64
        said = self._answers(lesson, speaker, [case.messages for case in cases], min(longest, 1024))
        judged = [
            {**asdict(case), "after": text, "right": lessons.as_corrected(text, case.correction)}
            for case, text in zip(cases, said, strict=True)
        ]
        taught = [case["correction_id"] for case in judged if case["right"]]
        changes = {"state": "learned", "learned": speaker.ref, "cases": judged, "ended_at": time.time()}
        self._store.change_lesson(lesson.id, self._owner, only_in="learning", teaches=taught, **changes)
        self._go_on_with(lesson.conversation_id, lesson.taught, speaker.ref)
        try:
            self._prove(lesson, speaker, [Case(**case) for case in judged])
        except Exception:
            # It was learned all the same; the model's page then says less.
            _log.exception("what a lesson cost couldn't be measured")

    def _prove(self, lesson: Lesson, speaker: Speaker, cases: list[Case]) -> None:
        """What came of it, kept with the model: at once what was taught, and then what became of older lessons and skills."""
        told: dict[str, Any] = {"id": lesson.id, "cases": [case.judged() for case in cases], "earlier": []}
        self._store.set_proof(speaker.ref, lessons.proof(told, None, [], []), self._owner)
        older, tasks = self._taught_before(lesson), lessons.skills(speaker.base_model)
        asked = [*(case.messages for case in older), *(list(task.prompt) for task in tasks)]
        if not asked:
            return
        longest = max([_SHORT, *(len(case.correction) + 64 for case in older)])
        after = self._answers(lesson, speaker, asked, min(longest, 1024))
        again = zip(older, after[: len(older)], strict=True)
        told["earlier"] = [lessons.judged(case.messages, case.after or "", text, case.correction) for case, text in again]
        try:
            before = self._answers(lesson, self._playground.speaker(lesson.taught), asked[len(older) :], _SHORT) if tasks else None
        except NotFound:
            before = None
        self._store.set_proof(speaker.ref, lessons.proof(told, before, after[len(older) :], tasks), self._owner)

    def _taught_before(self, lesson: Lesson) -> list[Case]:
        """What the lessons before this one, each going on from the one before, have taught for good."""
        by_model = {found.learned: found for found in self._store.lessons(self._owner) if found.learned and found.id != lesson.id}
        cases: list[Case] = []
        taught, newer = lesson.taught, {case.prompt for case in self.cases(lesson)}
        while (found := by_model.pop(taught, None)) is not None:
            cases += [case for case in self.cases(found) if case.right and case.prompt not in newer]
            newer |= {case.prompt for case in cases}
            taught = found.taught
        return cases

    def _answers(self, lesson: Lesson, speaker: Speaker, asked: list[list[dict[str, str]]], longest: int) -> list[str]:
        return lessons.own_answers(self._endpoint(speaker, lesson.id), speaker, asked, longest)

    def _go_on_with(self, conversation_id: str, before: str, after: str) -> None:
        setup = self._store.conversation(conversation_id, self._owner).setup
        speakers = [after if ref == before else ref for ref in setup.get("speakers", [])]
        if after not in speakers:
            speakers = [after, *speakers[1:]]
        self._store.change_conversation(conversation_id, setup={**setup, "speakers": speakers}, owner=self._owner)

    def _endpoint(self, speaker: Speaker, lesson_id: str) -> endpoints.Endpoint:
        folder = models.resolve(speaker.base_model, weights=endpoints.kind(speaker.endpoint, self._owner).weights)
        endpoint = endpoints.start(speaker.endpoint, speaker.base_model, folder, self._owner)
        endpoint.ready(lambda stage: self._busy.__setitem__(lesson_id, stage))
        return endpoint

    def _failed(self, lesson: Lesson, error: EngineError) -> Lesson:
        values = {"state": "failed", "error": error.to_dict(), "ended_at": time.time()}
        return self._store.change_lesson(lesson.id, self._owner, only_in=lesson.state, **values)


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise StateError("a correction needs a text", "Write what it should have said.")
    if len(text) > _MOST:
        raise StateError(f"a correction has up to {_MOST:,} characters, this one has {len(text):,}", "Shorten it.")
    return text


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


__all__ = ["UNDER_WAY", "Case", "Progress", "Teaching"]
