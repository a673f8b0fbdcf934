"""The official SDK, made to fail fast: every wait notices when the endpoint died, every error says what to do.

The SDK retries a lost connection for ever, so a wait here is cut into slices, and between them the endpoint is asked
whether it still lives. Knows the SDK and endpoints; nothing of methods or data.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import ModuleType
from typing import Any

import engine
from engine.endpoints import Endpoint
from engine.endpoints.waiting import SLICE_SECONDS, on_a_thread
from engine.errors import EndpointError, EndpointLost, EngineError, KeyNeeded, PaymentNeeded


class Client:
    """One session with an endpoint.

    `counted` holds tokens by kind, as endpoints bill them: prefill (read), sample (written), train (learned from: forward and backward).
    """

    def __init__(self, endpoint: Endpoint, metadata: dict[str, str], poll: Callable[[], None] | None = None):
        """`poll` is called between slices of a wait: it may raise to abandon it."""
        tinker = load_sdk()
        self.endpoint = endpoint
        self.poll = poll
        self._polled_at = time.monotonic()
        self._asked: list[Any] | None = None
        self.counted: Counter[str] = Counter()

        def connect() -> Any:
            service = tinker.ServiceClient(base_url=endpoint.url, api_key=endpoint.key(), user_metadata=metadata)
            # The session is created on first use, and its failure belongs here.
            return service, service.holder

        self._service, self._holder = self._wait(on_a_thread(connect), "connecting")

    def create(self, base_model: str, rank: int, seed: int, train_mlp: bool, train_attn: bool, train_unembed: bool) -> Any:
        """A training client for a new adapter."""
        layers = {"train_mlp": train_mlp, "train_attn": train_attn, "train_unembed": train_unembed}
        return self.wait(self._service.create_lora_training_client(base_model, rank=rank, seed=seed, **layers), "creating the adapter")

    def create_full(self, base_model: str) -> Any:
        """A training client for a copy of all of the base's weights."""
        from engine.endpoints.full import create_full_training_client

        return self.wait(create_full_training_client(self._service, base_model), "copying the model's weights")

    def resume(self, path: str) -> Any:
        """A training client that goes on from a `weights` checkpoint, optimizer and all."""
        return self.wait(self._service.create_training_client_from_state_with_optimizer(path), "loading the checkpoint")

    def load(self, path: str) -> Any:
        """A training client that begins with the weights of a `weights` checkpoint, and a new optimizer."""
        return self.wait(self._service.create_training_client_from_state(path), "loading the checkpoint")

    def sampler(self, *, path: str | None = None, base_model: str | None = None) -> Any:
        """A sampling client for a `sampler_weights` checkpoint or the base model."""
        return self.wait(self._service.create_sampling_client(model_path=path, base_model=base_model), "opening a sampler")

    def wait(self, future: Any, doing: str) -> Any:
        """The future's result. Raises EndpointLost when the endpoint died meanwhile, else EngineError."""
        return self._wait(future.future(), doing)

    def wait_all(self, futures: Sequence[Any], doing: str) -> list[Any]:
        """Results in order."""
        return [self.wait(future, doing) for future in futures]

    def sample(self, sampler: Any, prompt: Sequence[int], count: int, params: Any) -> Any:
        """A future of `count` continuations of the prompt's tokens; what is written is counted by `wrote`."""
        from tinker import types

        self.counted["prefill"] += len(prompt)
        return self._noted(sampler.sample(types.ModelInput.from_ints(list(prompt)), count, params))

    def logprobs(self, sampler: Any, tokens: Sequence[int]) -> Any:
        """A future of each token's log-probability given those before it (nats); None for the first."""
        from tinker import types

        self.counted["prefill"] += len(tokens)
        return self._noted(sampler.compute_logprobs(types.ModelInput.from_ints(list(tokens))))

    def wrote(self, reply: Any) -> Any:
        """Counts what a sampler wrote. -> the same reply."""
        self.counted["sample"] += sum(len(sequence.tokens) for sequence in reply.sequences)
        return reply

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """What is asked of samplers in here is cancelled at the endpoint when the block is left by an error: else it would keep the
        endpoint busy with what nobody waits for."""
        outer, self._asked = self._asked, []
        try:
            yield
        except BaseException:
            for future in self._asked:
                future.future().cancel()
            raise
        finally:
            self._asked = outer

    def close(self, *, lost: bool = False) -> None:
        """Ends the session; `lost` skips the goodbye that nobody would hear."""
        try:
            if not lost and self.endpoint.alive():
                self._service.close("success").result(timeout=5)
                return
        except Exception as error:
            logging.getLogger(__name__).debug("the goodbye wasn't heard: %s", error)
        with suppress(Exception):
            # After a goodbye that failed the service gives its holder out no more.
            self._holder.close()

    def _wait(self, future: concurrent.futures.Future, doing: str) -> Any:
        # Of many short waits each ends before its first slice does: whoever wants to be heard is heard all the same.
        self._poll_if_due()
        while not concurrent.futures.wait([future], timeout=SLICE_SECONDS).done:
            self._poll_if_due()
            if not self.endpoint.alive():
                raise EndpointLost(f"the server ended while {doing}", "The job goes on from its last checkpoint.")
        try:
            return future.result()
        except Exception as error:
            raise self._explained(error, doing) from error

    def _noted(self, future: Any) -> Any:
        if self._asked is not None:
            self._asked.append(future)
        return future

    def _poll_if_due(self) -> None:
        if self.poll and time.monotonic() - self._polled_at >= SLICE_SECONDS:
            self._polled_at = time.monotonic()
            self.poll()

    def _explained(self, error: Exception, doing: str) -> EngineError:
        """The SDK's errors in our tree, with the server's own words where it has some."""
        if isinstance(error, EngineError):
            return error
        if not self.endpoint.alive() or not _settles(self.endpoint):
            return EndpointLost(f"the server ended while {doing}", "The job goes on from its last checkpoint.")
        if getattr(error, "status_code", None) == 402:
            return PaymentNeeded(f"{doing}: the server asks for payment first", "See to the account's billing; then go on.")
        if getattr(error, "status_code", None) in (401, 403):
            return KeyNeeded(f"{doing}: the server refused the key", "Give another one in the settings.")
        if broken := _given_up(error):
            # It has tried for minutes, or a clock that was set makes it believe so.
            return EndpointLost(f"{broken} while {doing}", "The job goes on from its last checkpoint.")
        body = getattr(error, "body", None)
        if isinstance(body, dict) and body.get("message"):
            return EndpointError(f"{doing}: {body['message']}", body.get("next_step", ""), where=body.get("where", ""))
        text = str(error).partition(" for self.request_id=")[0].removeprefix("Request failed: ")
        return EndpointError(f"{doing} failed: {text or type(error).__name__}", "Look at the job's log for more.")


def _given_up(error: Exception) -> str:
    """What the SDK tried to get past and couldn't, where another try may; empty for all else."""
    import tinker

    if isinstance(error, tinker.APIStatusError) and (error.status_code in (408, 429) or error.status_code >= 500):
        return f"the server kept answering with the status {error.status_code}"
    return "the connection to the server kept breaking" if isinstance(error, tinker.APIConnectionError) else ""


def load_sdk() -> ModuleType:
    """The official SDK. In processes that were started as ours it takes no torch along, which would be a second and 190 MB for
    tensors that nothing here hands it: there `TensorData.to_torch` and custom losses in torch don't work."""
    _prepare_environment()
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    ours = spec is not None and spec.name.partition(".")[0] == engine.__name__
    with _without_torch() if ours and "torch" not in sys.modules else nullcontext():
        import tinker
        import tinker.types

    return tinker


@contextmanager
def _without_torch() -> Iterator[None]:
    """Imports here find no torch; later ones do."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


def _prepare_environment() -> None:
    """Before the SDK is imported: no telemetry, and no proxy between us and this machine."""
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join([*hosts, *(host for host in ("127.0.0.1", "localhost", "::1") if host not in hosts)])


def _settles(endpoint: Endpoint) -> bool:
    """A connection that broke just now may be the first sign of a death: look again a moment later."""
    time.sleep(0.2)
    return endpoint.alive()
