"""Reaches other models than the one in training: teachers, judges and reward models, wherever they are.

A model is named as people name it: one of theirs by name or id, a checkpoint of a run, a base model, or what an earlier stage of the
same run trained. One on the run's own base model answers at the run's own endpoint; for another base model, another one is started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from engine import models
from engine.data.examples import Message
from engine.endpoints import kind, start
from engine.endpoints.client import Client
from engine.errors import NotFound, RecipeError
from engine.recipe import OF_STAGE
from engine.rendering import Renderer, get_renderer, load_tokenizer
from engine.starts import Start
from engine.training.desk import Desk, datum, logprobs_of, tokens_of
from engine.training.methods.reward_model import asked, odds


class Voice:
    """A model that can be asked. `question` is what it wants to be asked about answers, if it is a reward model.

    It is opened when it is first asked: a sampler for what it would say, a training client for how likely it finds what others said,
    which takes one request for any number of rows.
    """

    def __init__(
        self,
        client: Client,
        renderer: Renderer,
        base_model: str,
        open_sampler: Callable[[], Any],
        open_training: Callable[[], Any] | None = None,
        question: str = "",
    ):
        self.client, self.renderer, self.base_model, self.question = client, renderer, base_model, question
        self._open_sampler, self._open_training = open_sampler, open_training

    @cached_property
    def sampler(self) -> Any:
        """What it would say."""
        return self._open_sampler()

    @cached_property
    def _training(self) -> Any:
        return self._open_training() if self._open_training else None

    def likely(self, rows: Sequence[tuple[Sequence[int], int]], doing: str) -> list[list[float]]:
        """For each (tokens, start) the log-probabilities of the tokens from that place on, each given those before it (nats)."""
        if not rows:
            return []
        if self._training is None:
            futures = [self.client.logprobs(self.sampler, tokens) for tokens, _ in rows]
            return [list(self.client.wait(future, doing)[start:]) for future, (_, start) in zip(futures, rows, strict=True)]
        datums = [datum(tokens, weights=[1.0] * len(tokens)) for tokens, _ in rows]
        self.client.counted["prefill"] += tokens_of(datums)
        found = logprobs_of(self.client.wait(self._training.forward(datums, "cross_entropy"), doing))
        return [values[start - 1 :] for values, (_, start) in zip(found, rows, strict=True)]


class Reach:
    """What one stage of a run asks of other models. Connections are made when they are first needed."""

    def __init__(self, desk: Desk):
        self._desk = desk
        self._voices: dict[str, Voice] = {}
        self._clients: dict[tuple[str, str], Client] = {}

    def voice(self, name: str) -> Voice:
        """The model of that name; empty is the one that the stage starts from. Raises NotFound and EngineError."""
        if name not in self._voices:
            self._voices[name] = self._find(name)
        return self._voices[name]

    def ask(self, model: str, url: str, prompts: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float = 0.0) -> list[str]:
        """What a model says to each, over HTTP: one of the person's own, or one at a URL. Raises EngineError."""
        return self._desk.run.asker().ask(model, url, prompts, max_tokens=max_tokens, temperature=temperature)

    def odds(self, model: str, conversations: Sequence[Sequence[Message]], question: str) -> list[float]:
        """What a model thinks of the last answer of each conversation: the log-odds of yes. A reward model is asked the question that it
        was trained with."""
        voice = self.voice(model)
        rows = [asked(voice.renderer, messages, voice.question or question) for messages in conversations]
        found = voice.likely([(tokens, len(tokens) - 1) for tokens in rows], "asking the reward model")
        return [odds(values[0]) for values in found]

    def must_share_tokens(self, voice: Voice) -> None:
        """Raises RecipeError unless the model writes with the same tokens as the one in training."""
        own = self._desk.recipe.base_model
        if voice.base_model == own:
            return
        one, other = (load_tokenizer(models.resolve(name, weights=False)).get_vocab() for name in (own, voice.base_model))
        if one != other:
            raise RecipeError(
                "the teacher has another tokenizer than the student, so it can't say how likely the student's tokens are",
                "Choose a teacher of the same family, or learn its answers instead (kind: answers).",
                where="recipe distill.teacher",
            )

    def close(self) -> None:
        """Ends the sessions that were opened for this."""
        for client in self._clients.values():
            client.close()
        self._clients, self._voices = {}, {}

    def _find(self, name: str) -> Voice:
        desk, recipe = self._desk, self._desk.recipe
        if not name:
            return Voice(desk.client, desk.renderer, recipe.base_model, desk.start_sampler, desk.at_start)
        if name.startswith(OF_STAGE):
            left = desk.left[int(name.removeprefix(OF_STAGE))]
            opened = partial(desk.client.sampler, path=left["sampler_path"]), partial(desk.client.load, left["weights_path"])
            return Voice(desk.client, desk.renderer, recipe.base_model, *opened, recipe.reward_model.question)
        found = self._known(name)
        if found is None:
            client, renderer = self._at(recipe.endpoint, name, "auto")
            fresh = partial(client.create, name, 1, 0, True, True, False)
            return Voice(client, renderer, name, partial(client.sampler, base_model=name), fresh)
        client, renderer = self._at(found.endpoint, found.base_model, found.renderer)
        sampler = partial(client.sampler, path=found.sampler_path)
        return Voice(client, renderer, found.base_model, sampler, partial(client.load, found.path), found.question)

    def _poll(self) -> None:
        # Whoever waits for the run's own endpoint may be listening for other things from one moment to the next.
        if self._desk.client.poll:
            self._desk.client.poll()

    def _known(self, name: str) -> Start | None:
        try:
            return self._desk.run.find(name)
        except NotFound:
            if name == "nano" or models.is_hub_id(name) or Path(name).expanduser().is_dir():
                return None
            raise

    def _at(self, endpoint: str, base_model: str, renderer: str) -> tuple[Client, Renderer]:
        """A connection to where that base model is, and how it is spoken to."""
        desk, place = self._desk, kind(endpoint, self._desk.run.owner)
        folder = models.resolve(base_model, weights=place.weights)
        if (endpoint, base_model) == (desk.recipe.endpoint, desk.recipe.base_model):
            same = renderer in ("auto", desk.renderer.name)
            return desk.client, desk.renderer if same else get_renderer(renderer, load_tokenizer(folder))
        if (endpoint, base_model) not in self._clients:
            desk.run.stage(f"starting {base_model}, which is asked too")
            server = start(endpoint, base_model, folder, desk.run.owner)
            server.ready(desk.run.stage, self._poll)
            self._clients[endpoint, base_model] = Client(server, {"job": desk.run.job_id}, poll=self._poll)
        return self._clients[endpoint, base_model], get_renderer(renderer, load_tokenizer(folder))
