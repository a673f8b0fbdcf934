"""A conversation with a tuned or base model, rendered as it was trained. Knows endpoints through the SDK only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine import endpoints, models
from engine.errors import NotFound, StateError
from engine.rendering import Message, Renderer, get_renderer, load_tokenizer

if TYPE_CHECKING:
    from engine.endpoints.client import Client
    from engine.engine import Engine


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
    def open(engine: Engine, name: str = "", *, base_model: str = "", say: Callable[[str], None] = lambda text: None) -> Chat:
        """A tuned model by name, id or job; the newest without a name; or a bare base model. Raises EngineError."""
        from engine.endpoints.client import Client

        if base_model:
            shown, base, endpoint_name, path, renderer, system_prompt, stop = base_model, base_model, "local", None, "auto", "", ()
        else:
            known = engine.models()
            if not name and not known:
                raise NotFound("there is no tuned model yet", "Train one first: python thinker.py train --demo piglatin")
            model = engine.model(name) if name else known[0]
            shown, base, endpoint_name, path = model.name, model.base_model, model.endpoint, model.sampler_path
            renderer, system_prompt, stop = model.renderer, model.system_prompt, tuple(model.stop)
        folder = models.resolve(base)
        endpoint = endpoints.start(endpoint_name, base, folder)
        tokens = get_renderer(renderer, load_tokenizer(folder))
        endpoint.ready(say)
        client = Client(endpoint, {"chat": shown})
        try:
            sampler = client.sampler(path=path) if path else client.sampler(base_model=base)
        except BaseException:
            client.close()
            raise
        return Chat(shown, tokens, system_prompt, stop, client, sampler)

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
