"""Sessions, training runs, samplers and futures: who is there, and in which order things happen.

Clients send a run's requests in any order and more than once; each carries a sequence number. A run's requests are
given to the worker strictly by that number, and a number acts once: posting it again gives the same future. What was
refused still uses its number up, for the client has moved on. All methods run on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import DataError, EngineError, NotFound, StateError
from engine.server import wire
from engine.server.checkpoints import CheckpointInfo, CheckpointPath, CheckpointStore, check_name, check_ttl
from engine.server.model import Adapter, BaseModel, LoraSpec
from engine.server.requests import CreateModel, CreateSamplingSession, LoadWeights, OptimStep, Sample, SaveForSampler, SaveWeights
from engine.server.sampler import MAX_ROWS, SampleJob, Sampler, check_job
from engine.server.trainer import Trainer, check_data
from engine.server.worker import Future, Task, Worker

SESSION_LIFE = 600.0  # seconds without a sign of life
KEEP_RETRIEVED = 120.0  # seconds for which a retrieved result can be fetched again
GAP_LIFE = 330.0  # a client gives up posting a request after 300 s; what waits behind it then fails
REMEMBERED = 4096  # sequence numbers per run whose futures are known
MAX_EPHEMERAL = 16  # unnamed sampler snapshots a run keeps in memory
MAX_LOADED = 32  # named sampler checkpoints kept in memory


@dataclass
class Session:
    id: str
    seen: float
    metadata: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    runs: set[str] = field(default_factory=set)
    samplers: set[str] = field(default_factory=set)


@dataclass
class Run:
    """One training run; `trainer` is made by the worker when the creating request runs."""

    id: str
    session: Session
    spec: LoraSpec
    created: Future
    trainer: Trainer | None = None
    next_seq: int = 1
    waiting: dict[int, Task] = field(default_factory=dict)
    waiting_since: float = 0.0
    answers: OrderedDict[int, Future | EngineError] = field(default_factory=OrderedDict)
    names: dict[tuple[str, str], int] = field(default_factory=dict)
    ephemeral: list[str] = field(default_factory=list)


@dataclass
class SamplerState:
    """A sampling session: the base, a checkpoint, or a snapshot in memory."""

    id: str
    session: Session
    path: CheckpointPath | None = None
    snapshot: Adapter | None = None
    ephemeral: bool = False
    answers: OrderedDict[int, Future] = field(default_factory=OrderedDict)


class Service:
    """The server's memory."""

    def __init__(self, base: BaseModel, name: str, tokenizer_id: str, store: CheckpointStore, tokenizer, loop: asyncio.AbstractEventLoop):
        self.base = base
        self.name = name
        self.tokenizer_id = tokenizer_id
        self.store = store
        self.worker = Worker(MAX_ROWS)
        self.sampler = Sampler(base, tokenizer)
        self.sessions: dict[str, Session] = {}
        self.runs: dict[str, Run] = {}
        self.samplers: dict[str, SamplerState] = {}
        self.futures: dict[str, Future] = {}
        self.last_request = time.monotonic()
        self._loop = loop
        self._loaded: OrderedDict[str, Adapter] = OrderedDict()

    # -- sessions

    def create_session(self, metadata: dict[str, Any] | None) -> Session:
        session = Session(str(uuid.uuid4()), time.monotonic(), metadata or {})
        self.sessions[session.id] = session
        return session

    def session(self, session_id: str) -> Session:
        """Raises NotFound for ids of an earlier life, StateError for a finished one."""
        session = self.sessions.get(session_id)
        if session is None:
            raise NotFound(f"there is no session {session_id[:80]!r}", "The server may have been restarted: create a new client.")
        if session.finished:
            raise StateError("the session is finished", "Create a new client.")
        session.seen = time.monotonic()
        return session

    def finish_session(self, session_id: str) -> None:
        """Frees what the session held. Finishing twice is harmless."""
        session = self.sessions.get(session_id)
        if session is None:
            raise NotFound(f"there is no session {session_id[:80]!r}", "Nothing is left to finish.")
        session.finished = True
        for run_id in session.runs:
            self.runs.pop(run_id, None)
        for sampler_id in session.samplers:
            self.samplers.pop(sampler_id, None)

    # -- training runs

    def create_model(self, request: CreateModel) -> tuple[Future, str]:
        session = self.session(request.session_id)
        run_id = f"{session.id}:train:{request.model_seq_id}"
        if run_id in self.runs:
            return self.runs[run_id].created, run_id
        self._check_base(request.base_model)
        if request.lora_config is None:
            raise DataError("this server trains LoRA adapters", "Send a lora_config.", where="lora_config")
        if request.optimizer_config.type != "adamw":
            raise DataError("this server's optimizer is AdamW", "Leave optimizer_config out.", where="optimizer_config")
        lora = request.lora_config
        spec = LoraSpec(lora.rank, lora.train_mlp, lora.train_attn, lora.train_unembed)
        self._check_spec(spec)
        run = self._new_run(run_id, session, spec)

        def work() -> dict[str, Any]:
            run.trainer = Trainer(self.base, self.base.new_adapter(spec, lora.seed))
            return {"model_id": run_id, "type": "create_model"}

        self.worker.put(Task(run.created, work, cancelled=lambda: session.finished))
        return run.created, run_id

    def load_weights(self, request: LoadWeights) -> Future:
        """Into a new run (addressed by session) or into an existing one (by model and number)."""
        if request.session_id is not None:
            return self._create_by_loading(request)
        run = self.run(request.model_id or "")

        def make() -> Callable[[], dict[str, Any]]:
            path, info = self._loadable(request)
            if info.spec != run.spec:
                raise DataError("the checkpoint's adapter has another shape", "Create the client from the checkpoint.", where="path")
            return lambda: self._load_into(run, path, request.optimizer)

        return self.submit(run, request.seq_id, make)

    def run(self, model_id: str) -> Run:
        """Raises NotFound."""
        run = self.runs.get(model_id)
        if run is None:
            raise NotFound(f"there is no training run {model_id[:120]!r}", "The server may have been restarted: create a new client.")
        self.session(run.session.id)
        return run

    def train(self, run: Run, message: wire.pb.ForwardBackwardRequest) -> Future:
        def make() -> Callable[[], bytes]:
            request = wire.read_train_request(message)
            check_data(request.data, request.loss_fn, request.loss_config, self.base)
            return lambda: wire.write_train_output(
                *self._trainer(run).forward_backward(request.data, request.loss_fn, request.loss_config, forward_only=request.forward_only)
            )

        return self.submit(run, message.seq_id, make)

    def optim_step(self, request: OptimStep) -> Future:
        run = self.run(request.model_id)

        def make() -> Callable[[], dict[str, Any]]:
            params = request.adam()
            return lambda: {"metrics": self._trainer(run).optim_step(params), "type": "optim_step"}

        return self.submit(run, request.seq_id, make)

    def save_weights(self, request: SaveWeights) -> Future:
        run = self.run(request.model_id)

        def make() -> Callable[[], dict[str, Any]]:
            path = self._new_path(run, "weights", request, request.overwrite)

            def work() -> dict[str, Any]:
                self._save(run, path, request, with_optimizer=True)
                return {"path": str(path), "type": "save_weights"}

            return work

        return self.submit(run, request.seq_id, make)

    def save_for_sampler(self, request: SaveForSampler) -> Future:
        """Named: a checkpoint on disk. Unnamed: a snapshot in memory, for the sampling session of that number."""
        run = self.run(request.model_id)
        if request.path is None:
            return self.submit(run, request.seq_id, lambda: self._snapshot_work(run, request))

        def make() -> Callable[[], dict[str, Any]]:
            path = self._new_path(run, "sampler_weights", request, overwrite=False)

            def work() -> dict[str, Any]:
                self._save(run, path, request, with_optimizer=False)
                return {"path": str(path), "type": "save_weights_for_sampler"}

            return work

        return self.submit(run, request.seq_id, make)

    def submit(self, run: Run, seq: int | None, make: Callable[[], Callable[[], dict[str, Any] | bytes]]) -> Future:
        """The future of request `seq`: the one known, or a new one queued in its turn. `make` checks, then gives the work."""
        seq = run.next_seq + len(run.waiting) if seq is None else seq
        known = run.answers.get(seq)
        if isinstance(known, EngineError):
            raise known
        if known is not None:
            return known
        if seq < run.next_seq:
            raise StateError(f"request {seq} of this run is long past", "Go on with later numbers.", where="seq_id")
        future = self._new_future(f"{run.id}:{seq}")
        try:
            work = make()
        except EngineError as error:
            run.answers[seq] = error
            self.futures.pop(future.request_id)
            self._enqueue(run, seq, Task(future, dict))
            raise
        run.answers[seq] = future
        self._enqueue(run, seq, Task(future, work, cancelled=lambda: run.session.finished))
        return future

    # -- sampling

    def create_sampling_session(self, request: CreateSamplingSession) -> SamplerState:
        session = self.session(request.session_id)
        sampler_id = f"{session.id}:sample:{request.sampling_session_seq_id}"
        if sampler_id in self.samplers:
            return self.samplers[sampler_id]
        path = self._sampler_path(request.model_path, request.base_model)
        state = SamplerState(sampler_id, session, path)
        self.samplers[sampler_id] = state
        session.samplers.add(sampler_id)
        return state

    def sampler_state(self, sampler_id: str) -> SamplerState:
        """Raises NotFound."""
        state = self.samplers.get(sampler_id)
        if state is None:
            raise NotFound(f"there is no sampling session {sampler_id[:120]!r}", "It ended, or the server was restarted: create a new sampler.")
        self.session(state.session.id)
        return state

    def sample(self, request: Sample) -> Future:
        if request.sampling_session_id is None:
            path = self._sampler_path(request.model_path, request.base_model)
            state = SamplerState("", Session("", time.monotonic()), path)
        else:
            state = self.sampler_state(request.sampling_session_id)
            if request.seq_id is not None and request.seq_id in state.answers:
                return state.answers[request.seq_id]
        for name in ("topk_prompt_logprobs", "topk_sample_logprobs", "prompt_alt_tokens_k", "target_prompt_logprobs"):
            if getattr(request, name):
                raise DataError(f"{name} isn't offered by this server", "Leave it out.", where=name)
        job = self._sample_job(request)
        check_job(job, self.base)
        number = request.seq_id if state.id and request.seq_id is not None else uuid.uuid4().hex
        future = self._new_future(f"{state.id}:{number}")
        if state.id and request.seq_id is not None:
            state.answers[request.seq_id] = future
            _trim(state.answers)
        last_n = request.prompt_logprobs_last_n

        def together(payloads: list[tuple[SampleJob, int | None]]) -> list[bytes]:
            results = self.sampler.sample(self._sampler_adapter(state), [job for job, _ in payloads])
            return [
                wire.write_sample_response(sequences, _only_last(logprobs, n))
                for (sequences, logprobs), (_, n) in zip(results, payloads, strict=True)
            ]

        key = state.id or str(state.path)
        task = Task(future, dict, ("sample", key), (job, last_n), together, job.n, lambda: state.session.finished)
        self.worker.put(task)
        return future

    # -- futures and upkeep

    def future(self, request_id: str) -> Future:
        """Raises NotFound for one that never was, or was retrieved and let go."""
        found = self.futures.get(request_id)
        if found is None:
            raise NotFound(f"there is no request {request_id[:160]!r}", "The server may have been restarted: create a new client.")
        return found

    def upkeep(self) -> None:
        """Called every few seconds: lets go of what nobody will ask for again."""
        now = time.monotonic()
        for request_id, future in list(self.futures.items()):
            if future.retrieved_at is not None and now - future.retrieved_at > KEEP_RETRIEVED:
                del self.futures[request_id]
        for run in list(self.runs.values()):
            if run.waiting and now - run.waiting_since > GAP_LIFE:
                self._skip_gap(run)
        for session in list(self.sessions.values()):
            if now - session.seen > SESSION_LIFE:
                self.finish_session(session.id)
                del self.sessions[session.id]
                for request_id in [key for key in self.futures if key.startswith(session.id)]:
                    del self.futures[request_id]

    def idle_seconds(self) -> float:
        """How long nobody has had a session and nothing has run."""
        if self.worker.busy or self.worker.waiting or any(not session.finished for session in self.sessions.values()):
            self.last_request = time.monotonic()
        return time.monotonic() - self.last_request

    # -- inside

    def _new_run(self, run_id: str, session: Session, spec: LoraSpec) -> Run:
        run = Run(run_id, session, spec, self._new_future(f"{run_id}:create"))
        self.runs[run_id] = run
        session.runs.add(run_id)
        return run

    def _new_future(self, request_id: str) -> Future:
        future = Future(request_id, self._loop)
        self.futures[request_id] = future
        return future

    def _enqueue(self, run: Run, seq: int, task: Task) -> None:
        run.waiting[seq] = task
        run.waiting_since = time.monotonic()
        while run.next_seq in run.waiting:
            self.worker.put(run.waiting.pop(run.next_seq))
            run.next_seq += 1
        _trim(run.answers)

    def _skip_gap(self, run: Run) -> None:
        missing = run.next_seq
        for task in run.waiting.values():
            task.future.fail(EngineError(f"request {missing} of this run never arrived", "Resume from the last checkpoint."))
        run.next_seq = max(run.waiting) + 1
        run.waiting.clear()

    def _create_by_loading(self, request: LoadWeights) -> Future:
        session = self.session(request.session_id or "")
        run_id = f"{session.id}:train:{request.model_seq_id}"
        if run_id in self.runs:
            return self.runs[run_id].created
        if request.base_model is not None:
            self._check_base(request.base_model)
        path, info = self._loadable(request)
        run = self._new_run(run_id, session, info.spec)
        task = Task(run.created, lambda: self._load_into(run, path, request.optimizer), cancelled=lambda: session.finished)
        self.worker.put(task)
        return run.created

    def _loadable(self, request: LoadWeights) -> tuple[CheckpointPath, CheckpointInfo]:
        path = CheckpointPath.parse(request.path)
        info = self.store.info(path)
        self._check_base(info.base_model)
        if request.optimizer and not info.has_optimizer:
            raise DataError(f"{path} has no optimizer state", "Load it without the optimizer, or a checkpoint of kind weights.", where="path")
        return path, info

    def _load_into(self, run: Run, path: CheckpointPath, optimizer: bool) -> dict[str, Any]:
        info, tensors = self.store.load_adapter(path)
        trainer = Trainer(self.base, self.base.adapter_from_tensors(info.spec, tensors, trainable=True))
        trainer.steps = info.steps
        if optimizer:
            trainer.load_optimizer_tensors(self.store.load_optimizer(path))
        run.trainer = trainer
        return {"path": str(path), "model_id": run.id, "type": "load_weights"}

    def _trainer(self, run: Run) -> Trainer:
        if run.trainer is None:
            raise StateError("the run could not be created", "Look at the error of the request that created it.")
        return run.trainer

    def _save(self, run: Run, path: CheckpointPath, request: SaveWeights, *, with_optimizer: bool) -> None:
        trainer, now = self._trainer(run), time.time()
        info = CheckpointInfo(
            path=str(path),
            base_model=self.name,
            rank=run.spec.rank,
            train_mlp=run.spec.train_mlp,
            train_attn=run.spec.train_attn,
            train_unembed=run.spec.train_unembed,
            steps=trainer.steps,
            created_at=now,
            expires_at=now + request.ttl_seconds if request.ttl_seconds else None,
            has_optimizer=with_optimizer,
            user_metadata=request.user_metadata or {},
        )
        try:
            optimizer = trainer.optimizer_tensors() if with_optimizer else None
            self.store.save(path, info, trainer.adapter.named_tensors(), self.base.target_modules(run.spec), optimizer)
        except EngineError:
            run.names.pop((path.kind, path.name), None)
            raise

    def _new_path(self, run: Run, kind: str, request: SaveWeights, overwrite: bool) -> CheckpointPath:
        name = request.path or f"step-{run.next_seq:06d}"
        check_name(name)
        check_ttl(request.ttl_seconds)
        path = CheckpointPath(run.id, kind, name)
        taken = (kind, name) in run.names or self.store.exists(path)
        if taken and not overwrite:
            raise StateError(f"there is a checkpoint {path} already", "Use another name, or overwrite=True.", where="path")
        run.names[kind, name] = 1
        return path

    def _snapshot_work(self, run: Run, request: SaveForSampler) -> Callable[[], dict[str, Any]]:
        if request.sampling_session_seq_id is None:
            raise DataError("neither a name nor a sampling session's number was given", "Send path or sampling_session_seq_id.", where="path")
        state = SamplerState(f"{run.session.id}:sample:{request.sampling_session_seq_id}", run.session, ephemeral=True)
        self.samplers[state.id] = state
        run.session.samplers.add(state.id)
        run.ephemeral.append(state.id)
        for old in run.ephemeral[:-MAX_EPHEMERAL]:
            self.samplers.pop(old, None)
        run.ephemeral = run.ephemeral[-MAX_EPHEMERAL:]

        def work() -> dict[str, Any]:
            state.snapshot = self._trainer(run).adapter.frozen_copy()
            return {"sampling_session_id": state.id, "type": "save_weights_for_sampler"}

        return work

    def _sampler_adapter(self, state: SamplerState) -> Adapter | None:
        if state.ephemeral:
            if state.snapshot is None:
                raise StateError("the snapshot could not be made", "Save the weights again.")
            return state.snapshot
        if state.path is None:
            return None
        key = str(state.path)
        if key not in self._loaded:
            info, tensors = self.store.load_adapter(state.path)
            self._loaded[key] = self.base.adapter_from_tensors(info.spec, tensors, trainable=False)
        self._loaded.move_to_end(key)
        while len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def _sampler_path(self, model_path: str | None, base_model: str | None) -> CheckpointPath | None:
        if model_path is None:
            self._check_base(base_model or "")
            return None
        path = CheckpointPath.parse(model_path)
        if path.kind != "sampler_weights":
            raise DataError(f"{path} is for training on, not for sampling", "Use the path that save_weights_for_sampler gave.", where="model_path")
        self._check_base(self.store.info(path).base_model)
        return path

    def _sample_job(self, request: Sample) -> SampleJob:
        params = request.sampling_params
        stop = [params.stop] if isinstance(params.stop, str) else params.stop
        stop_tokens = () if stop == [] else self.base.eos_tokens
        strings = tuple(entry for entry in stop or () if isinstance(entry, str))
        if any(not entry for entry in strings):
            raise DataError("a stop string is empty", "Leave it out.", where="stop")
        return SampleJob(
            prompt=request.tokens(),
            n=request.num_samples,
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=params.seed,
            stop_tokens=stop_tokens + tuple(entry for entry in stop or () if isinstance(entry, int)),
            stop_strings=strings,
            prompt_logprobs=bool(request.prompt_logprobs),
        )

    def _check_base(self, name: str) -> None:
        if name not in (self.name, str(self.base.folder), self.tokenizer_id):
            raise NotFound(f"this server has the base model {self.name!r}, not {name[:200]!r}", f"Ask for {self.name!r}.", where="base_model")

    def _check_spec(self, spec: LoraSpec) -> None:
        if not self.base.target_modules(spec) or not 1 <= spec.rank <= 512:
            raise DataError("the adapter would have no layers, or its rank is not 1 to 512", "Correct lora_config.", where="lora_config")


def _trim(answers: OrderedDict[int, Any]) -> None:
    while len(answers) > REMEMBERED:
        answers.popitem(last=False)


def _only_last(logprobs: list[float] | None, n: int | None) -> list[float] | None:
    if logprobs is None or n is None:
        return logprobs
    return [float("nan")] * (len(logprobs) - n) + logprobs[-n:]
