"""Sessions, training runs and futures: who is there, what they own, and what becomes of it when they're gone.

Each is found by its owner's requests alone; to others it isn't there. Checks each request as it arrives, so that a mistake
is answered at once, and gives the worker what is to be done. All methods run on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.errors import DataError, NotFound, StateError
from engine.server import wire
from engine.server.checkpoints import CheckpointInfo, CheckpointPath, CheckpointStore, check_name, check_ttl
from engine.server.decode import Decoder
from engine.server.library import Library, RunRecord
from engine.server.memory import let_go
from engine.server.model import BaseModel
from engine.server.order import InOrder
from engine.server.owners import current_owner
from engine.server.packing import Packed
from engine.server.requests import CreateModel, CreateSamplingSession, LoadWeights, OptimStep, Sample, SaveForSampler, SaveWeights
from engine.server.sampler import MAX_ROWS, Sampler
from engine.server.sampling import SamplerState, Sampling
from engine.server.sessions import FinishSession, Session
from engine.server.trainer import Trainer
from engine.server.weights import FullSpec, LoraSpec
from engine.server.worker import KEEP_SECONDS, UNFETCHED_SECONDS, Future, Work, Worker

_SAVED = {"weights": "save_weights", "sampler_weights": "save_weights_for_sampler", "external_weights": "save_weights_external"}


@dataclass
class Run:
    """One training run; the worker makes `trainer` when the request that creates the run has its turn."""

    id: str
    session: Session
    spec: LoraSpec | FullSpec
    created: Future
    requests: InOrder
    trainer: Trainer | None = None
    saving: set[CheckpointPath] = field(default_factory=set)
    last_request: float = field(default_factory=time.time)

    def ready(self) -> Trainer:
        """Raises StateError when its creation failed."""
        if self.trainer is None:
            raise StateError("the run could not be created", "Look at the error of the request that created it.")
        self.trainer.check_whole()
        return self.trainer


class Service:
    """The server's memory."""

    def __init__(
        self,
        base: BaseModel,
        name: str,
        tokenizer_id: str,
        store: CheckpointStore,
        tokenizer,
        loop: asyncio.AbstractEventLoop,
        *,
        reference: bool = False,
    ):
        """`reference` keeps to the plain ways, which the fast ones are tested against."""
        self.base = base
        self.packed = None if reference else Packed.if_it_agrees(base)
        self.name, self.tokenizer_id, self.tokenizer = name, tokenizer_id, tokenizer
        self.store = store
        self.library = Library(store)
        decoder = None if reference else Decoder(base, tokenizer)
        self.worker = Worker(MAX_ROWS, decoder, partial(let_go, base.device))
        self.sampling = Sampling(base, decoder or Sampler(base, tokenizer), store, self.worker, self._new_future)
        self.sessions: dict[str, Session] = {}
        self.runs: dict[str, Run] = {}
        self.futures: dict[str, Future] = {}
        self.last_request = time.monotonic()
        self._loop = loop

    # -- sessions

    def create_session(self, metadata: dict[str, Any] | None, display_name: str | None = None) -> Session:
        """A new one, with an id that no other life of the server has given."""
        session = Session(str(uuid.uuid4()), time.monotonic(), metadata or {}, display_name)
        self.sessions[session.id] = session
        return session

    def session(self, session_id: str) -> Session:
        """Raises NotFound for ids of an earlier life, StateError for a finished one."""
        session = self.known_session(session_id)
        if session.finished:
            raise StateError("the session is finished", "Create a new client.")
        session.heard()
        return session

    def known_session(self, session_id: str) -> Session:
        """Finished or not. Raises NotFound."""
        session = self.sessions.get(session_id)
        if session is None or session.owner != current_owner():
            raise NotFound(f"there is no session {session_id[:80]!r}", "The server may have been restarted: create a new client.")
        return session

    def finish_session(self, session_id: str, end: FinishSession | None = None) -> None:
        """Frees what the session held. Finishing twice is harmless. Raises NotFound."""
        session = self.known_session(session_id)
        session.finish(end)
        self._let_go(session)

    def _let_go(self, session: Session) -> None:
        for run in self.runs.values():
            if run.session is session:
                run.requests.close()
        self.runs = {key: run for key, run in self.runs.items() if run.session is not session}
        self.sampling.close_session(session.id)
        self.worker.rest_again()

    # -- training runs

    def run(self, model_id: str) -> Run:
        """Raises NotFound."""
        run = self.runs.get(model_id)
        if run is None or run.session.owner != current_owner():
            raise NotFound(f"there is no training run {model_id[:120]!r}", "The server may have been restarted: create a new client.")
        self.session(run.session.id)
        run.last_request = time.time()
        return run

    def create_model(self, request: CreateModel) -> tuple[Future, str]:
        """-> the future of its creation, and the run's id."""
        session = self.session(request.session_id)
        run_id = f"{session.id}:train:{request.model_seq_id}"
        if run_id in self.runs:
            return self.runs[run_id].created, run_id
        self._check_base(request.base_model)
        spec = request.spec()
        if isinstance(spec, LoraSpec) and not self.base.target_modules(spec):
            raise DataError("the adapter would have no layers", "Switch on train_mlp, train_attn or train_unembed.", where="lora_config")
        run = self._new_run(run_id, session, spec, request.user_metadata)

        def work() -> dict[str, Any]:
            whole = isinstance(spec, FullSpec)
            weights = self.base.new_full() if whole else self.base.new_adapter(spec, request.lora_config.seed)
            run.trainer = Trainer(self.base, weights, self.packed)
            return {"model_id": run_id, "type": "create_model"}

        self.worker.put(session.task(run_id, run.created, work))
        return run.created, run_id

    def load_weights(self, request: LoadWeights) -> Future:
        """Into a new run (addressed by session) or into an existing one (by model and number)."""
        if request.session_id is not None:
            return self._create_by_loading(request)
        run = self.run(request.model_id or "")

        def make() -> Work:
            path, info = self._loadable(request)
            if info.spec != run.spec:
                raise DataError("the checkpoint's weights have another shape", "Create the client from the checkpoint.", where="path")
            return lambda: self._load_into(run, path, request.optimizer)

        return run.requests.submit(request.seq_id, make)

    def train(self, message: wire.pb.ForwardBackwardRequest, read: Callable[[], wire.TrainRequest]) -> Future:
        """forward_backward, or forward alone. `read` gives what is in the message, or raises."""
        run = self.run(message.model_id)

        def make() -> Work:
            request = read()

            def work() -> bytes:
                outputs, metrics = run.ready().forward_backward(
                    request.data, request.loss_fn, request.loss_config, forward_only=request.forward_only
                )
                return wire.write_train_output(outputs, metrics)

            return work

        return run.requests.submit(message.seq_id, make)

    def optim_step(self, request: OptimStep) -> Future:
        """One update."""
        run = self.run(request.model_id)

        def make() -> Work:
            params = request.adam()
            return lambda: {"metrics": run.ready().optim_step(params), "type": "optim_step"}

        return run.requests.submit(request.seq_id, make)

    def save_weights(self, request: SaveWeights) -> Future:
        """A checkpoint to go on from."""
        return self._save_as("weights", request, overwrite=request.overwrite)

    def save_external(self, request: SaveWeights) -> Future:
        """A checkpoint to be fetched over HTTP."""
        return self._save_as("external_weights", request, overwrite=False)

    def save_for_sampler(self, request: SaveForSampler) -> Future:
        """Named: a checkpoint on disk. Unnamed: a snapshot in memory, for the sampling session of that number."""
        if request.path is not None:
            return self._save_as("sampler_weights", request, overwrite=False)
        run = self.run(request.model_id)

        def make() -> Work:
            if request.sampling_session_seq_id is None:
                raise DataError("neither a name nor a sampling session's number was given", "Send one of them.", where="path")
            sampler_id = f"{run.session.id}:sample:{request.sampling_session_seq_id}"
            state = self.sampling.open_snapshot(sampler_id, run.session.id, run.id, whole=not run.spec.is_lora)

            def work() -> dict[str, Any]:
                state.snapshot = run.ready().sound_weights().frozen_copy()
                return {"sampling_session_id": state.id, "type": "save_weights_for_sampler"}

            return work

        return run.requests.submit(request.seq_id, make)

    # -- sampling

    def create_sampling_session(self, request: CreateSamplingSession) -> SamplerState:
        """For a checkpoint, or for the base."""
        session = self.session(request.session_id)
        path = self._sampler_path(request.model_path, request.base_model)
        return self.sampling.open(f"{session.id}:sample:{request.sampling_session_seq_id}", session.id, path)

    def sampler(self, sampler_id: str) -> SamplerState:
        """Raises NotFound."""
        state = self.sampling.state(sampler_id)
        self.session(state.session_id)
        return state

    def sample(self, request: Sample) -> Future:
        """From a sampling session, or for once from a path or the base."""
        if request.sampling_session_id is None:
            state = SamplerState("", "", self._sampler_path(request.model_path, request.base_model))
            return self.sampling.sample(state, request, lambda: False)
        state = self.sampler(request.sampling_session_id)
        session = self.sessions[state.session_id]
        return self.sampling.sample(state, request, lambda: session.finished or session.quiet)

    def model(self, name: str) -> CheckpointPath | None:
        """What is meant by a model's name: a sampler checkpoint by its path, or None for the base. Raises NotFound, DataError."""
        return self._sampler_path(name if name.startswith("tinker://") else None, name)

    # -- futures and upkeep

    def future(self, request_id: str) -> Future:
        """Raises NotFound for one that never was, or was retrieved and let go."""
        found = self.futures.get(request_id)
        if found is None or found.owner != current_owner():
            raise NotFound(f"there is no request {request_id[:160]!r}", "The server may have been restarted: create a new client.")
        return found

    def upkeep(self) -> None:
        """Called every few seconds: lets go of what nobody will ask for again."""
        now = time.monotonic()
        for request_id, future in list(self.futures.items()):
            fetched, finished = future.retrieved_at, future.finished_at
            if (fetched is not None and now - fetched > KEEP_SECONDS) or (finished is not None and now - finished > UNFETCHED_SECONDS):
                del self.futures[request_id]
                # Its run remembers that the request was made, so that it never runs again, but not what came of it.
                future.result = None
        for run in self.runs.values():
            run.requests.skip_gap(now)
        for session in list(self.sessions.values()):
            if session.lapsed:
                session.lapse()
                self._let_go(session)
                del self.sessions[session.id]
                self.futures = {key: future for key, future in self.futures.items() if not key.startswith(session.id)}

    def idle_seconds(self) -> float:
        """How long nobody has had a session and nothing has run."""
        if self.worker.busy or self.worker.waiting or any(not session.finished for session in self.sessions.values()):
            self.last_request = time.monotonic()
        return time.monotonic() - self.last_request

    # -- inside

    def _new_future(self, request_id: str) -> Future:
        future = self.futures[request_id] = Future(request_id, self._loop)
        return future

    def _new_run(self, run_id: str, session: Session, spec: LoraSpec | FullSpec, metadata: dict[str, Any] | None) -> Run:
        now, of_session = time.time(), {"session_metadata": session.metadata, "display_name": session.display_name}
        record = RunRecord(run_id, session.owner, session.id, self.name, now, now, spec.rank, user_metadata=metadata or {}, **of_session)
        self.library.add_run(record)
        requests = InOrder(self.worker, lambda number: self._new_future(f"{run_id}:{number}"), partial(session.task, run_id))
        run = self.runs[run_id] = Run(run_id, session, spec, self._new_future(f"{run_id}:create"), requests)
        return run

    def _create_by_loading(self, request: LoadWeights) -> Future:
        session = self.session(request.session_id or "")
        run_id = f"{session.id}:train:{request.model_seq_id}"
        if run_id in self.runs:
            return self.runs[run_id].created
        if request.base_model is not None:
            self._check_base(request.base_model)
        path, info = self._loadable(request)
        run = self._new_run(run_id, session, info.spec, request.user_metadata)
        self.worker.put(session.task(run_id, run.created, lambda: self._load_into(run, path, request.optimizer)))
        return run.created

    def _loadable(self, request: LoadWeights) -> tuple[CheckpointPath, CheckpointInfo]:
        path = CheckpointPath.parse(request.path)
        info = self.library.readable(path)
        if path.kind == "external_weights":
            raise DataError(f"{path} is for download, not for training on", "Use the path that save_state gave.", where="path")
        self._check_base(info.base_model)
        if request.optimizer and not info.has_optimizer:
            raise DataError(
                f"{path} has no optimizer state", "Load it without the optimizer, or a checkpoint of kind weights.", where="path"
            )
        return path, info

    def _load_into(self, run: Run, path: CheckpointPath, optimizer: bool) -> dict[str, Any]:
        info, weights = self.store.load(path, self.base, trainable=True)
        trainer = Trainer(self.base, weights, self.packed)
        trainer.steps = info.steps
        if optimizer:
            trainer.load_optimizer_tensors(self.store.load_optimizer(path))
        run.trainer = trainer
        return {"path": str(path), "model_id": run.id, "type": "load_weights"}

    def _save_as(self, kind: str, request: SaveWeights, *, overwrite: bool) -> Future:
        run = self.run(request.model_id)

        def make() -> Work:
            path = self._new_path(run, kind, request, overwrite)

            def work() -> dict[str, Any]:
                try:
                    self._save(run, path, request)
                finally:
                    run.saving.discard(path)
                return {"path": str(path), "size_bytes": self.store.size(path), "type": _SAVED[kind]}

            return work

        return run.requests.submit(request.seq_id, make)

    def _new_path(self, run: Run, kind: str, request: SaveWeights, overwrite: bool) -> CheckpointPath:
        if request.age_encryption_recipients:
            raise DataError("this server doesn't encrypt checkpoints", "Leave it out.", where="age_encryption_recipients")
        name = request.path or f"unnamed-{uuid.uuid4().hex[:12]}"
        check_name(name)
        check_ttl(request.ttl_seconds)
        path = CheckpointPath(run.id, kind, name)
        if not overwrite and (path in run.saving or self.store.exists(path)):
            raise StateError(f"there is a checkpoint {path} already", "Use another name, or overwrite=True.", where="path")
        run.saving.add(path)
        return path

    def _save(self, run: Run, path: CheckpointPath, request: SaveWeights) -> None:
        trainer, now = run.ready(), time.time()
        spec, with_optimizer = run.spec, path.kind == "weights"
        info = CheckpointInfo(
            path=str(path),
            base_model=self.name,
            rank=spec.rank,
            train_mlp=spec.train_mlp,
            train_attn=spec.train_attn,
            train_unembed=spec.train_unembed,
            steps=trainer.steps,
            created_at=now,
            expires_at=now + request.ttl_seconds if request.ttl_seconds else None,
            has_optimizer=with_optimizer,
            user_metadata=request.user_metadata or {},
            full=not spec.is_lora,
        )
        optimizer = trainer.optimizer_tensors() if with_optimizer else None
        self.store.save(path, info, trainer.sound_weights(), optimizer)
        self.library.touch(run.id)

    def _sampler_path(self, model_path: str | None, base_model: str | None) -> CheckpointPath | None:
        if model_path is None:
            self._check_base(base_model or "")
            return None
        path = CheckpointPath.parse(model_path)
        if path.kind != "sampler_weights":
            raise DataError(
                f"{path} is for training on, not for sampling", "Use the path that save_weights_for_sampler gave.", where="model_path"
            )
        self._check_base(self.library.readable(path).base_model)
        return path

    def _check_base(self, name: str) -> None:
        if name not in (self.name, str(self.base.folder), self.tokenizer_id):
            raise NotFound(
                f"this server has the base model {self.name!r}, not {name[:200]!r}", f"Ask for {self.name!r}.", where="base_model"
            )
