"""Reaches other models than the one in training: teachers, judges and reward models, wherever they are.

A model is named as people name it: one of theirs by name or id, a checkpoint of a run, a base model, or what an earlier stage of the
same run trained. One on the run's own base model answers at the run's own endpoint; for another base model, another one is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from engine.training.desk import Desk
from engine.training.methods.reward_model import asked, odds


@dataclass(frozen=True)
class Voice:
    """A model that can be asked. `question` is what it wants to be asked about answers, if it is a reward model."""

    client: Client
    sampler: Any
    renderer: Renderer
    base_model: str
    question: str = ""

    def logprobs(self, tokens: Sequence[int]) -> Any:
        """A future of each token's log-probability given those before it (nats)."""
        return self.client.logprobs(self.sampler, tokens)


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

    def odds(self, name: str, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """What a reward model thinks of the last answer of each conversation: the log-odds of yes."""
        voice = self.voice(name)
        if not voice.question:
            raise RecipeError(f"{name} is no reward model", "Train one by the method reward_model first.", where="recipe reward")
        futures = [voice.logprobs(asked(voice.renderer, messages, voice.question)) for messages in conversations]
        return [odds(voice.client.wait(future, "asking the reward model")[-1]) for future in futures]

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
            return Voice(desk.client, desk.start_sampler(), desk.renderer, recipe.base_model)
        if name.startswith(OF_STAGE):
            left = desk.left[int(name.removeprefix(OF_STAGE))]
            return Voice(
                desk.client, desk.client.sampler(path=left["sampler_path"]), desk.renderer, recipe.base_model, recipe.reward_model.question
            )
        found = self._known(name)
        if found is None:
            client, renderer = self._at(recipe.endpoint, name, "auto")
            return Voice(client, client.sampler(base_model=name), renderer, name)
        client, renderer = self._at(found.endpoint, found.base_model, found.renderer)
        return Voice(client, client.sampler(path=found.sampler_path), renderer, found.base_model, found.question)

    def _known(self, name: str) -> Start | None:
        try:
            return self._desk.run.find(name)
        except NotFound:
            if name == "nano" or models.is_hub_id(name) or Path(name).expanduser().is_dir():
                return None
            raise

    def _at(self, endpoint: str, base_model: str, renderer: str) -> tuple[Client, Renderer]:
        """A connection to where that base model is, and how it is spoken to."""
        desk, place = self._desk, kind(endpoint)
        folder = models.resolve(base_model, weights=place.weights)
        if (endpoint, base_model) == (desk.recipe.endpoint, desk.recipe.base_model):
            same = renderer in ("auto", desk.renderer.name)
            return desk.client, desk.renderer if same else get_renderer(renderer, load_tokenizer(folder))
        if (endpoint, base_model) not in self._clients:
            desk.run.stage(f"starting {base_model}, which is asked too")
            server = start(endpoint, base_model, folder, desk.run.owner)
            server.ready(desk.run.stage)
            self._clients[endpoint, base_model] = Client(server, {"job": desk.run.job_id}, poll=desk.client.poll)
        return self._clients[endpoint, base_model], get_renderer(renderer, load_tokenizer(folder))
