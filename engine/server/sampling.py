"""Samplers: the base model, checkpoints on disk and snapshots in memory, and the requests to sample from them.

Methods run on the event loop's thread, but for the adapters' look-up, which only the worker does.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import DataError, NotFound, StateError
from engine.server import wire
from engine.server.checkpoints import CheckpointPath, CheckpointStore
from engine.server.decode import Answer, Decoder, Request
from engine.server.logprobs import Wanted, other_logprobs
from engine.server.model import BaseModel
from engine.server.order import REMEMBERED
from engine.server.owners import current_owner
from engine.server.polling import FinishedLog
from engine.server.requests import Sample, TensorBody
from engine.server.sampler import SampleJob, Sampler, Sequences, check_job
from engine.server.scoring import score
from engine.server.weights import Weights
from engine.server.worker import Future, Task, Worker, explained

MAX_EPHEMERAL = 16  # unnamed snapshots that a session keeps in memory
MAX_LOADED = 32  # named checkpoints kept in memory
MAX_WHOLE = 2  # of either, where they are whole copies of the model


@dataclass
class SamplerState:
    """One sampling session. `path` None and not ephemeral is the bare base."""

    id: str
    session_id: str
    path: CheckpointPath | None = None
    snapshot: Weights | None = None
    ephemeral: bool = False
    whole: bool = False
    answers: OrderedDict[int, Future] = field(default_factory=OrderedDict)
    owner: str = field(default_factory=current_owner)
    finished: FinishedLog = field(default_factory=FinishedLog)
    clones: int = 0
    lane: str = ""


@dataclass(frozen=True)
class Asked:
    """One request to sample, checked; `targets` as they travelled."""

    job: SampleJob
    wanted: Wanted
    targets: TensorBody | None


class Sampling:
    """All samplers of one server."""

    def __init__(
        self, base: BaseModel, sampler: Sampler | Decoder, store: CheckpointStore, worker: Worker, new_future: Callable[[str], Future]
    ):
        """`sampler` is the plain reference, or the decoder that the worker advances."""
        self._base, self._sampler, self._store, self._worker = base, sampler, store, worker
        self._new_future = new_future
        self._states: dict[str, SamplerState] = {}
        self._loaded: OrderedDict[str, tuple[float, Weights]] = OrderedDict()  # with when each was saved

    def open(self, sampler_id: str, session_id: str, path: CheckpointPath | None) -> SamplerState:
        """The state of that id, made if it's new."""
        return self._states.setdefault(sampler_id, SamplerState(sampler_id, session_id, path))

    def open_snapshot(self, sampler_id: str, session_id: str, run_id: str, *, whole: bool) -> SamplerState:
        """A state whose snapshot the worker is going to take among the run's requests. A session's oldest ones are let go."""
        state = self._states[sampler_id] = SamplerState(sampler_id, session_id, ephemeral=True, whole=whole, lane=run_id)
        states = self._states.values()
        own = [known.id for known in states if known.ephemeral and known.session_id == session_id and known.whole == whole]
        for old in own[: -(MAX_WHOLE if whole else MAX_EPHEMERAL)]:
            del self._states[old]
        return state

    def state(self, sampler_id: str) -> SamplerState:
        """Raises NotFound."""
        found = self._states.get(sampler_id)
        if found is None or found.owner != current_owner():
            raise NotFound(
                f"there is no sampling session {sampler_id[:120]!r}", "It ended, or the server was restarted: create a new sampler."
            )
        return found

    def of_session(self, session_id: str) -> list[str]:
        """The ids of a session's samplers."""
        return [state.id for state in self._states.values() if state.session_id == session_id]

    def close_session(self, session_id: str) -> None:
        """Lets go of all its samplers."""
        self._states = {key: state for key, state in self._states.items() if state.session_id != session_id}

    def sample(self, state: SamplerState, request: Sample, abandoned: Callable[[], bool]) -> Future:
        """The future of the request: the one known by its number, or a new one. Raises DataError."""
        numbered = state.id and request.seq_id is not None
        if numbered and request.seq_id in state.answers:
            return state.answers[request.seq_id]
        job = self._job(request)
        self._check(job)
        wanted = self._wanted(request, job)
        last_n = request.prompt_logprobs_last_n
        if last_n is not None and not ((job.prompt_logprobs or wanted.topk_prompt) and last_n < len(job.prompt)):
            raise DataError("prompt_logprobs_last_n needs prompt_logprobs, and fewer tokens than the prompt", "Correct it.", where="prompt")
        future = self._new_future(f"{state.id}:{request.seq_id if numbered else uuid.uuid4().hex}")
        future.can_be_cancelled = True
        if numbered:
            state.answers[request.seq_id] = future
            state.finished.watch(request.seq_id, future)
            while len(state.answers) > REMEMBERED:
                state.answers.popitem(last=False)
        asked = Asked(job, wanted, request.target_prompt_logprobs)

        def gone() -> bool:
            return future.cancelled or abandoned()

        # What is scored besides runs by itself, so that its cost and its errors are nobody else's.
        key = ("scored", future.request_id) if wanted else ("sample", state.id or str(state.path))
        self._submit(state, job, future, key, lambda answer: self._reply(state, asked, *answer), gone, gone)
        return future

    def _reply(self, state: SamplerState, asked: Asked, sequences: Sequences, logprobs: list[float] | None) -> bytes:
        """What was sampled, as it travels, with what else was asked for. Only the worker calls it."""
        wanted, scores = asked.wanted, None
        if wanted:
            written = [tokens for tokens, _, _ in sequences]
            scores = other_logprobs(self._base, self._adapter(state), asked.job.prompt, written, wanted)
        return wire.write_sample_response(sequences, _only_last(logprobs, wanted.last_n), scores, asked.targets)

    def _wanted(self, request: Sample, job: SampleJob) -> Wanted:
        targets = request.target_prompt_logprobs
        wanted = Wanted(
            topk_prompt=request.topk_prompt_logprobs,
            topk_sample=request.topk_sample_logprobs,
            alternatives=request.prompt_alt_tokens_k,
            targets=None if targets is None else wire.read_targets(targets, len(job.prompt) - 1),
            last_n=request.prompt_logprobs_last_n,
            temperature=job.temperature,
            seed=job.seed,
        )
        wanted.check(len(job.prompt), job.n, min(self._base.context, job.max_tokens or self._base.context), self._base)
        return wanted

    def complete(self, path: CheckpointPath | None, job: SampleJob, future: Future) -> None:
        """Finishes `future` with {"sequences"}: for whoever reads the tokens here rather than over the wire."""
        self._check(job)
        state = SamplerState("", "", path)

        dropped = job.abandoned or (lambda: False)
        key = ("complete", str(path))
        self._submit(state, job, future, key, lambda answer: {"sequences": answer[0]}, dropped, lambda: False)

    def score(self, path: CheckpointPath | None, tokens: list[int], start: int, top: int, future: Future) -> None:
        """Finishes `future` with {"scores"}: see engine.server.scoring."""
        state = SamplerState("", "", path)
        self._worker.put(Task(future, lambda: {"scores": score(self._base, self._adapter(state), tokens, start, top)}))

    def _submit(
        self,
        state: SamplerState,
        job: SampleJob,
        future: Future,
        key: object,
        write: Callable[[Answer], dict[str, Any] | bytes],
        dropped: Callable[[], bool],
        gone: Callable[[], bool],
    ) -> None:
        """Finishes `future` with what `write` makes of the answer, unless it is dropped beforehand or its client is gone.

        The plain sampler answers what waits under the same `key` together.
        """
        sampler = self._sampler
        if not isinstance(sampler, Decoder):

            def together(payloads: list[tuple[SampleJob, Callable[[Answer], dict[str, Any] | bytes]]]) -> list[dict[str, Any] | bytes]:
                answers = sampler.sample(self._adapter(state), [job for job, _ in payloads])
                return [write(answer) for answer, (_, write) in zip(answers, payloads, strict=True)]

            self._worker.put(Task(future, dict, key, (job, write), together, job.n, dropped, lane=state.lane))
            return

        def done(outcome: Answer | Exception) -> None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                future.finish(write(outcome))
            except Exception as error:
                future.fail(explained(error))

        task = Task(future, lambda: sampler.add(self._adapter(state), Request(job, done, gone)), cancelled=dropped, lane=state.lane)
        # A snapshot that isn't taken yet waits for its turn among the run's requests, everything else overtakes them.
        unready = state.ephemeral and state.snapshot is None
        self._worker.put(task) if unready else self._worker.put_first(task)

    def _check(self, job: SampleJob) -> None:
        check_job(job, self._base)
        if isinstance(self._sampler, Decoder):
            self._sampler.caches.check(job)

    def _job(self, request: Sample) -> SampleJob:
        params = request.sampling_params
        stop = [params.stop] if isinstance(params.stop, str) else params.stop
        strings = tuple(entry for entry in stop or () if isinstance(entry, str))
        if any(not entry for entry in strings):
            raise DataError("a stop string is empty", "Leave it out.", where="stop")
        # No list keeps the model's own end marks, an empty one switches them off, any other comes on top of them.
        own_marks = () if stop == [] else self._base.eos_tokens
        return SampleJob(
            prompt=request.tokens(),
            n=request.num_samples,
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=params.seed,
            stop_tokens=own_marks + tuple(entry for entry in stop or () if isinstance(entry, int)),
            stop_strings=strings,
            prompt_logprobs=bool(request.prompt_logprobs),
        )

    def _adapter(self, state: SamplerState) -> Weights | None:
        if state.ephemeral:
            if state.snapshot is None:
                raise StateError("the snapshot could not be made", "Save the weights again.")
            return state.snapshot
        if state.path is None:
            return None
        key = str(state.path)
        try:
            info = self._store.info(state.path)
        except NotFound:
            self._loaded.pop(key, None)
            raise
        if key in self._loaded and self._loaded[key][0] != info.created_at:
            # Deleted, or run out, and saved anew under the old name.
            del self._loaded[key]
        if key not in self._loaded:
            if info.full:
                # Before the next one is loaded: two copies may be all that the memory holds.
                whole = [known for known, (_, weights) in self._loaded.items() if not weights.spec.is_lora]
                for old in whole[: len(whole) + 1 - MAX_WHOLE]:
                    del self._loaded[old]
            self._loaded[key] = info.created_at, self._store.load(state.path, self._base, trainable=False)[1]
        self._loaded.move_to_end(key)
        while len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[key][1]


def _only_last(logprobs: list[float] | None, n: int | None) -> list[float] | None:
    if logprobs is None or n is None:
        return logprobs
    return [float("nan")] * (len(logprobs) - n) + logprobs[-n:]
