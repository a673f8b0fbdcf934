"""The desk that a method works at: what it asks of the endpoint goes through here, and is counted.

Knows the SDK's types, one stage's recipe and how it speaks; nothing of what any method minimises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.endpoints.client import Client
from engine.recipe import Recipe
from engine.rendering import Renderer
from engine.training.parts import InParts, parts_of

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

Datum = Any
Future = Any
Sampler = Any


class Desk:
    """One stage's hold on the endpoint.

    `number` is the stage's place in its recipe, `began` the run's step at its beginning, `total` how many updates it makes;
    `left` is what earlier stages leave: {stage: paths}. While `in_parts` is set, nothing is learned and what is only looked at is sent part
    by part. `ahead`: what a later step asks may be sent before this one is over.
    """

    ahead = True

    def __init__(
        self,
        run: JobRun,
        client: Client,
        recipe: Recipe,
        renderer: Renderer,
        *,
        number: int = 0,
        began: int = 0,
        total: int = 0,
        open_start: Callable[[], Any],
        open_sampler: Callable[[], Sampler],
        left: Mapping[int, Mapping[str, str]] | None = None,
    ):
        self.run, self.client, self.recipe, self.renderer = run, client, recipe, renderer
        self.number, self.began, self.total, self.left = number, began, total, dict(left or {})
        self.training: Any = None
        self.in_parts = False
        self._open_start, self._open_sampler = open_start, open_sampler

    @property
    def folder(self) -> Path:
        """Where the run keeps its files."""
        return self.run.folder

    def wait(self, future: Future, doing: str) -> Any:
        """The future's result. Raises EndpointLost when the endpoint died meanwhile, else EngineError."""
        if isinstance(future, InParts):
            return future.collect(lambda part: self.client.wait(part, doing))
        return self.client.wait(future, doing)

    def forward(self, datums: Sequence[Datum], loss_fn: str = "cross_entropy", *, training: Any = None) -> Future:
        """Log-probabilities and loss with the weights as they are once all that was sent before has been done; of another
        training client's weights where one is given."""
        self.client.counted["prefill"] += tokens_of(datums)
        client = training or self.training
        if self.in_parts and len(parts := list(parts_of(datums))) > 1:
            return InParts(parts, lambda part: client.forward(part, loss_fn))
        return client.forward(list(datums), loss_fn)

    def forward_backward(self, datums: Sequence[Datum], loss_fn: str, config: dict[str, float] | None = None) -> Future:
        """The gradient of the loss, added to what is there."""
        self.client.counted["train"] += tokens_of(datums)
        return self.training.forward_backward(list(datums), loss_fn, config)

    def optim_step(self, rate: float) -> Future:
        """One update with the recipe's optimizer at this learning rate; the gradient is used up."""
        from tinker import types

        t = self.recipe.training
        params = types.AdamParams(
            learning_rate=rate, beta1=t.beta1, beta2=t.beta2, eps=t.eps, weight_decay=t.weight_decay, grad_clip_norm=t.grad_clip_norm
        )
        return self.training.optim_step(params)

    def snapshot(self) -> Sampler:
        """A sampler of the weights as they are; later updates don't change it."""
        return self.wait(self.training.save_weights_and_get_sampling_client(), "taking a snapshot")

    def sample(self, sampler: Sampler, prompt: Sequence[int], count: int, params: Any) -> Future:
        """`count` continuations of the prompt's tokens; what is written is counted by `wrote`."""
        return self.client.sample(sampler, prompt, count, params)

    def wrote(self, reply: Any) -> Any:
        """Counts what a sampler wrote. -> the same reply."""
        return self.client.wrote(reply)

    def logprobs(self, sampler: Sampler, tokens: Sequence[int]) -> Future:
        """A future of each token's log-probability given those before it (nats); None for the first."""
        return self.client.logprobs(sampler, tokens)

    def at_start(self) -> Any:
        """A training client of its own that stands where this stage began, however far the stage has got."""
        return self._open_start()

    def start_sampler(self) -> Sampler:
        """A sampler of the weights that this stage began with. It lasts: an endpoint forgets old snapshots, but no saved weights."""
        return self._open_sampler()


def datum(tokens: Sequence[int], **inputs: Sequence[float]) -> Datum:
    """A sequence to learn from: inputs are the tokens but the last, targets the tokens but the first.

    `inputs` (weights, advantages, logprobs) have one number a token, of which the first token's is dropped.
    """
    from tinker import types

    n = len(tokens) - 1
    loss_inputs = {name: types.TensorData(data=list(values[1:]), dtype="float32", shape=[n]) for name, values in inputs.items()}
    loss_inputs["target_tokens"] = types.TensorData(data=list(tokens[1:]), dtype="int64", shape=[n])
    return types.Datum(model_input=types.ModelInput.from_ints(list(tokens[:-1])), loss_fn_inputs=loss_inputs)


def logprobs_of(reply: Any) -> list[list[float]]:
    """Each row's log-probability of its targets, from a reply to forward or forward_backward."""
    return [list(output["logprobs"].data) for output in reply.loss_fn_outputs]


def tokens_of(datums: Sequence[Datum]) -> int:
    """Input tokens."""
    return sum(row.model_input.length for row in datums)
