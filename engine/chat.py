"""A conversation with a tuned or base model, rendered as it was trained. Knows endpoints through the SDK only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine import endpoints, models
from engine.endpoints import backups
from engine.errors import StateError
from engine.rendering import Message, Renderer, get_renderer, load_tokenizer

if TYPE_CHECKING:
    from engine.endpoints.client import Client
    from engine.store import Model


@dataclass
class Chat:
    """Remembers nothing between calls: each is given all messages."""

    name: str
    renderer: Renderer
    system_prompt: str
    stop: tuple[str, ...]
    client: Client
    sampler: Any

    @staticmethod
    def with_model(model: Model, say: Callable[[str], None]) -> Chat:
        """With a tuned model, by the renderer, system prompt and stop strings that it was trained with. Raises EngineError."""
        if backups.at_hand(model.sampler_path):
            say("its files were gone: they are put back from the backup")
        client, renderer = _connect(model.name, model.base_model, model.endpoint, model.renderer, say, model.owner)
        return Chat(model.name, renderer, model.system_prompt, tuple(model.stop), client, _sampler(client, path=model.sampler_path))

    @staticmethod
    def with_base(base_model: str, say: Callable[[str], None]) -> Chat:
        """With a bare base model. Raises EngineError."""
        client, renderer = _connect(base_model, base_model, "local", "auto", say)
        return Chat(base_model, renderer, "", (), client, _sampler(client, base_model=base_model))

    def reply(self, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int = 256, seed: int | None = None) -> str:
        """The model's answer to the conversation so far. Raises EngineError."""
        return self.replies([messages], temperature=temperature, max_tokens=max_tokens, seed=seed)[0]

    def replies(
        self, conversations: Sequence[Sequence[Message]], *, temperature: float = 0.0, max_tokens: int = 256, seed: int | None = None
    ) -> list[str]:
        """One answer a conversation, asked for at once."""
        from engine.data.examples import with_system
        from engine.training.answers import answer

        if not conversations or any(not messages for messages in conversations):
            raise StateError("there is nothing to answer", "Give at least one message.")
        prompts = [with_system(list(messages), self.system_prompt) for messages in conversations]
        return answer(
            self.client, self.sampler, self.renderer, prompts, max_tokens=max_tokens, stop=self.stop, temperature=temperature, seed=seed
        )

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(
    shown: str, base_model: str, endpoint_name: str, renderer: str, say: Callable[[str], None], owner: str = ""
) -> tuple[Client, Renderer]:
    from engine.endpoints.client import Client

    folder = models.resolve(base_model, weights=endpoints.kind(endpoint_name, owner).weights)
    endpoint = endpoints.start(endpoint_name, base_model, folder, owner)
    found = get_renderer(renderer, load_tokenizer(folder))
    endpoint.ready(say)
    return Client(endpoint, {"chat": shown}), found


def _sampler(client: Client, **which: str) -> Any:
    try:
        return client.sampler(**which)
    except BaseException:
        client.close()
        raise
