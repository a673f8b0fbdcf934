"""The assistant, first form: rules and Thinker's own knowledge, with no language model, no key and no network.

Understands what a person writes in plain English (`meaning`), keeps what it has understood of the conversation, and answers with data
(`reply`): text, choices, actions, a whole recipe. It starts, stops and deletes nothing; its actions are buttons. Everything belongs to its
owner; what is somebody else's raises NotFound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.assistant import by_method, comparing, explaining, going_on, guiding, manners, of_data, of_models, of_runs, pointing, proposing
from engine.assistant.desk import Desk, State
from engine.assistant.meaning import Meaning, read
from engine.assistant.reply import Action, Choice, Proposal, Reason, Reply, Takes, Warned
from engine.drafts import Draft
from engine.errors import NotFound, RecipeError
from engine.jobs import logs
from engine.recipe import Recipe
from engine.store import Store, Talk

__all__ = ["Assistant", "Reply", "Choice", "Action", "Proposal", "Reason", "Takes", "Warned"]

Answer = Callable[[Desk, Meaning, State], tuple[Reply, State]]
_ANSWERS: dict[str, Answer] = {
    "empty": manners.empty,
    "greeting": manners.greeting,
    "thanks": manners.thanks,
    "bye": manners.bye,
    "help": manners.helps,
    "unknown": manners.unknown,
    "limit": manners.limit,
    "delete": manners.delete,
    "goal": proposing.plan,
    "use_data": proposing.plan,
    "change": proposing.plan,
    "again": proposing.again,
    "new": proposing.new,
    "recommended": proposing.recommended,
    "launch": proposing.launch,
    "reset": proposing.reset,
    "further": going_on.further,
    "no_data": of_data.no_data,
    "why": proposing.why,
    "estimate": proposing.estimate,
    "list_data": of_data.data_sets,
    "upload": of_data.upload,
    "explain": explaining.term,
    "between": explaining.between,
    "trouble": explaining.trouble,
    "good_value": explaining.good_value,
    "unknown_term": explaining.unknown_term,
    "machine": explaining.machine,
    "base_models": explaining.base_models,
    "status": of_runs.state_of,
    "progress": of_runs.progress,
    "eta": of_runs.eta,
    "failure": of_runs.failure,
    "list_runs": of_runs.listed,
    "figure": of_runs.figure_now,
    "no_such_run": of_runs.gone,
    "compare": comparing.compared,
    "best_model": of_models.best,
    "list_models": of_models.models,
    "model": of_models.one,
    "chat": of_models.chat,
    "correcting": guiding.correcting,
    "privacy": guiding.privacy,
    "key": guiding.key,
    "which_one": guiding.which_one,
    "pause": of_runs.control,
    "stop": of_runs.control,
    "resume": of_runs.control,
}
_PLANS = ("goal", "use_data", "change", "again", "further", "new")
MOST_CHARACTERS = 4000
_TITLE = 60


class Assistant:
    """One person's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._desk = Desk(store, owner)

    def openings(self) -> tuple[Choice, ...]:
        """What to begin a conversation with, as things stand."""
        return manners.openings(self._desk)

    def answer(self, text: str, state: dict[str, Any] | None = None) -> tuple[Reply, dict[str, Any]]:
        """A reply, and what is understood by now; keeps nothing."""
        reply, after = self._answer(text, State.read(state))
        return reply, after.to_dict()

    def say(self, text: str, talk_id: str = "") -> Talk:
        """Answers, and keeps both, in a new conversation if none is named; a key in the text is masked. Raises NotFound."""
        text = logs.masked(text.strip()[:MOST_CHARACTERS])
        state = State.read(self.talk(talk_id).state if talk_id else None)
        reply, after = self._answer(text, state)
        if not talk_id:
            talk_id = self._store.add_talk(self._owner, " ".join(text.split())[:_TITLE] or "(nothing)").id
        turns = [{"role": "user", "text": text}, {"role": "assistant", "reply": reply.to_dict()}]
        return self._store.extend_talk(talk_id, self._owner, turns, after.to_dict())

    # -- conversations that are kept

    def talks(self, limit: int = 50) -> list[Talk]:
        """The latest first."""
        return self._store.talks(self._owner, limit)

    def talk(self, talk_id: str) -> Talk:
        """Raises NotFound."""
        return self._store.talk(talk_id, self._owner)

    def delete(self, talk_id: str) -> None:
        """The conversation; what was started from it stays. Raises NotFound."""
        self._store.delete_talk(talk_id, self._owner)

    # -- proposals

    def proposal(self, talk_id: str, turn: int) -> Proposal:
        """What was proposed in that turn. Raises NotFound."""
        turns = self.talk(talk_id).turns
        values = turns[turn].get("reply") if 0 <= turn < len(turns) else None
        found = Reply.from_dict(values).proposal if values else None
        if found is None:
            raise NotFound("nothing was proposed there", "Say what the model should learn.", where=f"conversation {talk_id}")
        return found

    def recipe(self, talk_id: str, turn: int) -> Recipe:
        """The proposal's recipe, checked. Raises NotFound, and RecipeError where this version can't read it."""
        return Recipe.make(self.proposal(talk_id, turn).recipe)

    def started(self, talk_id: str) -> dict[int, str]:
        """{turn: the run that its proposal became}."""
        return {int(turn): job_id for turn, job_id in State.read(self.talk(talk_id).state).started.items()}

    def note_start(self, talk_id: str, turn: int, job_id: str) -> Talk:
        """Remembers that the proposal of a turn became this run; what comes next is about another. Raises NotFound."""
        job = self._store.find_job(job_id, self._owner)
        said = [{"role": "event", "kind": "started", "job": job.id}]
        # Another tab may say the same, or something else, at the same moment.
        while (started := State.read((talk := self.talk(talk_id)).state).started).get(str(turn)) != job.id:
            after = State(run=job.id, started={**started, str(turn): job.id})
            self._store.extend_talk(talk_id, self._owner, said, after.to_dict(), only_after=len(talk.turns))
        return talk

    def token(self, talk_id: str, turn: int) -> str:
        """What the launch of that turn's proposal is known by: however often it is pressed, it becomes one run. Raises NotFound."""
        self.proposal(talk_id, turn)
        return f"proposal:{talk_id}:{turn}"

    def to_wizard(self, talk_id: str, turn: int) -> Draft:
        """Puts the proposal into the wizard, in place of the draft there, to be changed by hand. Raises NotFound."""
        made = self.proposal(talk_id, turn)
        return self._desk.drafts.save(Draft(goal=made.goal, step=3, reached=4, changes=made.changes))

    def _answer(self, text: str, state: State) -> tuple[Reply, State]:
        try:
            meaning = read(pointing.resolved(text, state.shown), self._desk.names())
        except pointing.Missed:
            meaning = Meaning("which_one", text=text)
        if state.asked == "teacher" and (meaning.intent.startswith("unknown") or by_method.ORDERS.match(text)):
            # The long prompt that was asked for, as it stands.
            meaning = Meaning("goal", method="distill", teaching={"kind": "prompt", "teacher_prompt": text.strip()}, text=text)
        if meaning.intent in _PLANS:
            try:
                Recipe.make(meaning.changes)
            except RecipeError as error:
                # Before it is noted for later: what no recipe can have would stand in the way of all that follows.
                return proposing.refused(error, meaning.intent), state
        reply, after = _ANSWERS[meaning.intent](self._desk, meaning, state)
        return reply if reply.intent == meaning.intent else replace(reply, intent=meaning.intent), after
