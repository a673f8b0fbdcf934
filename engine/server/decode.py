"""Sampling, fast: requests are continued together and bit by bit, new ones join between steps, finished rows make room.

The plain `sampler.Sampler` says what comes out, this does the same sooner. Requests for the same weights share a lane, and
lanes take turns, so nobody waits for another's long answer to end. Runs on the worker's thread only; knows adapters, not
where they come from.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from engine.errors import EngineError
from engine.server.dense import DenseModel
from engine.server.draw import Draw
from engine.server.model import Adapter, BaseModel
from engine.server.sampler import MAX_ROWS, Row, SampleJob, Sampler, Sequences
from engine.server.slots import GeneralBatch, SlotBatch
from engine.server.worker import session_ended

log = logging.getLogger("thinker.server")

MAX_LANES = 8  # weights that are sampled from in turns; further ones wait
PREFILL_TOKENS = 4096  # padded prompt tokens computed at once
FEW = MAX_ROWS // 8  # free places below which a full batch doesn't stop for newcomers

Answer = tuple[Sequences, list[float] | None]


@dataclass(eq=False)
class Request:
    """One SampleJob on its way. `done` is called once, with the answer or with what went wrong."""

    job: SampleJob
    done: Callable[[Answer | Exception], None]
    gone: Callable[[], bool] = field(default=lambda: False)
    rows: list[Row] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None
    unfinished: int = 0
    settled: bool = False

    def settle(self, outcome: Answer | Exception) -> None:
        if not self.settled:
            self.settled = True
            self.done(outcome)

    def abandoned(self) -> bool:
        """Nobody wants the rest of it."""
        return self.settled or self.gone() or (self.job.abandoned is not None and self.job.abandoned())


class Decoder:
    """All sampling of one base model."""

    def __init__(self, base: BaseModel, tokenizer=None):
        self.base = base
        self.plain = Sampler(base, tokenizer)
        self.dense = DenseModel.of(base)
        self._free = torch.Generator(base.device if base.device == "cuda" else "cpu")
        self._free.seed()
        self._lanes: dict[Adapter | None, _Lane] = {}
        self._turns: deque[_Lane] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is something left to do."""
        return bool(self._turns)

    def add(self, adapter: Adapter | None, request: Request) -> None:
        """Takes a request in; it is answered during later calls of `advance`."""
        lane = self._lanes.get(adapter)
        if lane is None:
            lane = self._lanes[adapter] = _Lane(self, adapter)
            self._turns.append(lane)
        lane.waiting.append(request)

    def advance(self, seconds: float) -> None:
        """One lane's turn of about so long: at least one step, and a lane without work ends."""
        lane = self._turns[0]
        try:
            lane.work(time.monotonic() + seconds)
        except Exception as error:
            _log(error)
            lane.fail(error)
        if lane.idle:
            self._turns.popleft()
            del self._lanes[lane.adapter]
        else:
            # The first few take turns; the others wait behind them until one of these ends.
            self._turns.rotate(-1) if len(self._turns) <= MAX_LANES else self._rotate_front()

    def sample(self, adapter: Adapter | None, jobs: Sequence[SampleJob]) -> list[Answer]:
        """All jobs to their end, as Sampler.sample. Raises what went wrong."""
        found: dict[int, Answer | Exception] = {}
        for i, job in enumerate(jobs):
            self.add(adapter, Request(job, lambda outcome, i=i: found.__setitem__(i, outcome)))
        while self.busy:
            self.advance(1.0)
        for outcome in found.values():
            if isinstance(outcome, Exception):
                raise outcome
        return [found[i] for i in range(len(jobs))]

    def new_batch(self, adapter: Adapter | None) -> SlotBatch | GeneralBatch:
        # Other weights than pairs beside the base's are in place only while the base is `using` them.
        if self.dense and (adapter is None or isinstance(adapter, Adapter)):
            return SlotBatch(self.dense, adapter)
        return GeneralBatch(self.base, adapter)

    def draw(self, rows: Sequence[Row]) -> Draw:
        return Draw(rows, self.base.device, self._free)

    def _rotate_front(self) -> None:
        front = [self._turns.popleft() for _ in range(MAX_LANES)]
        self._turns.extendleft(reversed([*front[1:], front[0]]))


class _Lane:
    """The requests for one adapter."""

    def __init__(self, decoder: Decoder, adapter: Adapter | None):
        self.adapter = adapter
        self.waiting: deque[Request] = deque()
        self._decoder = decoder
        self._ready: deque[tuple[Request, Row]] = deque()  # rows without a place yet
        self._running: list[_Running] = []

    @property
    def idle(self) -> bool:
        return not (self.waiting or self._ready or self._running)

    def work(self, until: float) -> None:
        """Steps until then, at least one."""
        self._let_go()
        while True:
            while self.waiting:
                self._open(self.waiting.popleft())
                if time.monotonic() >= until:
                    break
            self._join()
            for running in self._running:
                running.step()
            self._running = [running for running in self._running if running.rows]
            if self.idle or time.monotonic() >= until:
                return

    def fail(self, error: Exception) -> None:
        """Everything that is under way ends with the error."""
        requests = [request for request, _ in self._ready] + [request for running in self._running for request, _ in running.rows]
        self._ready.clear()
        self._running.clear()
        for request in requests:
            request.settle(error)

    def _let_go(self) -> None:
        """Rows that nobody wants any more leave, as far as they got."""
        for request in {request: None for request, _ in self._ready}:
            if request.abandoned():
                placeless = [pair for pair in self._ready if pair[0] is request]
                self._ready = deque(pair for pair in self._ready if pair[0] is not request)
                for _ in placeless:
                    _leave(request)
        for running in self._running:
            running.let_go()

    def _open(self, request: Request) -> None:
        """Its rows, and the log-probabilities of its prompt."""
        plain, job = self._decoder.plain, request.job
        if request.abandoned():
            request.settle(session_ended())
            return
        try:
            request.rows = [plain.row(job, position) for position in range(job.n)]
            if job.prompt_logprobs:
                with plain.base.using(self.adapter):
                    request.prompt_logprobs = plain.prompt_logprobs(job.prompt)
        except Exception as error:
            _log(error)
            request.settle(error)
            return
        request.unfinished = sum(row.limit > 0 for row in request.rows)
        self._ready.extend((request, row) for row in request.rows if row.limit > 0)
        if not request.unfinished:
            _answer(request)

    def _join(self) -> None:
        """Gives waiting rows their places."""
        places = MAX_ROWS - sum(len(running.rows) for running in self._running)
        if not self._ready or places < min(FEW, len(self._ready)):
            return
        newcomers = [self._ready.popleft() for _ in range(min(places, len(self._ready)))]
        newcomers.sort(key=lambda pair: len(pair[1].job.prompt))
        rows: list[tuple[Request, Row]] = []
        prompts: set[tuple[int, ...]] = set()
        for pair in newcomers:
            longest = len(pair[1].job.prompt)
            if rows and (len(prompts) + 1) * longest > PREFILL_TOKENS and tuple(pair[1].job.prompt) not in prompts:
                self._start(rows)
                rows, prompts = [], set()
            rows.append(pair)
            prompts.add(tuple(pair[1].job.prompt))
        self._start(rows)

    def _start(self, rows: list[tuple[Request, Row]]) -> None:
        open_one = next((running for running in self._running if running.batch.joinable), None)
        if open_one is None:
            open_one = _Running(self._decoder, self._decoder.new_batch(self.adapter))
            self._running.append(open_one)
        open_one.join(rows)


class _Running:
    """A batch and the requests that its rows belong to."""

    def __init__(self, decoder: Decoder, batch: SlotBatch | GeneralBatch):
        self.batch = batch
        self.rows: list[tuple[Request, Row]] = []
        self._decoder = decoder
        self._tokens = torch.empty(0, dtype=torch.long, device=decoder.base.device)
        self._draw: Draw | None = None

    def join(self, rows: list[tuple[Request, Row]]) -> None:
        """New rows, with their first token."""
        self.rows += rows
        logits = self.batch.join([row.job.prompt for _, row in rows])
        tokens, drawn, logprobs = self._decoder.draw([row for _, row in rows])(logits)
        self._tokens = torch.cat([self._tokens, tokens])
        self._draw = None
        self._written(len(self.rows) - len(rows), drawn, logprobs)

    def step(self) -> None:
        """One token more for each row."""
        if not self.rows:
            return
        if self._draw is None:
            self._draw = self._decoder.draw([row for _, row in self.rows])
        self._tokens, drawn, logprobs = self._draw(self.batch.step(self._tokens))
        self._written(0, drawn, logprobs)

    def let_go(self) -> None:
        """The rows of abandoned requests leave."""
        abandoned = {request for request in {request for request, _ in self.rows} if request.abandoned()}
        self._drop([i for i, (request, _) in enumerate(self.rows) if request in abandoned])

    def _written(self, first: int, drawn: list[int], logprobs: list[float]) -> None:
        ended = []
        for i, (token, logprob) in enumerate(zip(drawn, logprobs, strict=True), first):
            row, job = self.rows[i][1], self.rows[i][1].job
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if job.on_token:
                job.on_token(row.position, token, logprob)
            if self._decoder.plain.finished(row):
                ended.append(i)
        self._drop(ended)

    def _drop(self, ended: list[int]) -> None:
        if not ended:
            return
        leaving = [self.rows[i][0] for i in ended]
        order = self.batch.drop(ended)
        self.rows = [self.rows[i] for i in order]
        self._tokens = self._tokens[torch.tensor(order, dtype=torch.long, device=self._tokens.device)]
        self._draw = None
        for request in leaving:
            _leave(request)


def _log(error: Exception) -> None:
    if not isinstance(error, EngineError):
        log.exception("sampling failed")


def _leave(request: Request) -> None:
    """One of its rows is done with; the last one brings the answer."""
    request.unfinished -= 1
    if not request.unfinished:
        _answer(request)


def _answer(request: Request) -> None:
    if request.gone():
        request.settle(session_ended())
    else:
        request.settle(([(row.tokens, row.logprobs, row.stopped) for row in request.rows], request.prompt_logprobs))
