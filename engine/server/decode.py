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
from itertools import islice

import torch

from engine.errors import EngineError
from engine.server.cache_room import CacheRoom, measured_bytes_a_token
from engine.server.dense import DenseModel
from engine.server.draw import Draw
from engine.server.memory import let_go, out_of_memory, ran_out
from engine.server.model import Adapter, BaseModel
from engine.server.reading import Read, finish, read_prompts, together
from engine.server.sampler import Row, SampleJob, Sampler, Sequences
from engine.server.slots import GeneralBatch, SlotBatch
from engine.server.worker import session_ended

log = logging.getLogger("thinker.server")

MAX_LANES = 8  # weights that are sampled from in turns; further ones wait
PREFILL_TOKENS = 4096  # padded prompt tokens computed at once
FEW = 8  # a full batch doesn't stop for newcomers with less than so small a part of its places free

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
        self.caches = CacheRoom(base, self.dense.bytes_a_token if self.dense else measured_bytes_a_token(base))
        self.hungry: _Lane | None = None  # has waited longest for room; the others take nobody in before it
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
            short = ran_out(error)
            if short:
                lane.retreat()
            else:
                _log(error)
                lane.fail(error)
        else:
            short = False
        if short:
            # Only here, without the error, nothing holds on to the caches any more.
            let_go(self.base.device)
        if lane.idle:
            self._turns.popleft()
            del self._lanes[lane.adapter]
            self.caches.recover()
            if self.hungry is lane:
                self.hungry = None
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
        return GeneralBatch(self.base, adapter, self.caches.bytes_a_token)

    def used(self, but: _Running | None = None) -> int:
        """Bytes of all caches, `but` one."""
        return sum(running.batch.size() for lane in self._turns for running in lane.running if running is not but)

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
        self.running: list[_Running] = []
        self._fresh: SlotBatch | GeneralBatch | None = None  # for the rows that come next

    @property
    def idle(self) -> bool:
        return not (self.waiting or self._ready or self.running)

    def work(self, until: float) -> None:
        """Steps until then, at least one."""
        self._let_go()
        while True:
            while self.waiting:
                requests = together(self.waiting)
                read = read_prompts(self._decoder.plain, self.adapter, requests)
                for request in requests:
                    self._open(request, read.get(request))
                if time.monotonic() >= until:
                    break
            self._join()
            for running in self.running:
                self._make_way(running)
                running.step()
            self._sweep()
            if not self.running or time.monotonic() >= until:
                return

    def fail(self, error: Exception) -> None:
        """Everything that is under way ends with the error."""
        requests = [request for request, _ in self._ready] + [request for running in self.running for request, _ in running.rows]
        self._ready.clear()
        self.running.clear()
        for request in requests:
            request.settle(error)

    def retreat(self) -> None:
        """The memory ran out: all rows wait again, for less room, from where they are. One that had all there is fails."""
        rows = sum(len(running.rows) for running in self.running)
        used = self._decoder.used()
        alone = used == sum(running.batch.size() for running in self.running)
        if rows <= 1 and alone:
            for request, row in (pair for running in self.running for pair in running.rows):
                request.settle(out_of_memory(f"a sample after {len(row.text()):,} tokens", "Shorten the prompt."))
        else:
            self._decoder.caches.ran_out(used, rows)
            self._decoder.hungry = self._decoder.hungry or self
            for running in self.running:
                self._ready.extendleft(reversed(running.leave(0)))
        self.running.clear()

    def _make_way(self, running: _Running) -> None:
        """Rows that the next step has no room for wait again; one may always go on when nothing else is there."""
        others = self._decoder.used(running)
        while running.rows and others + running.batch.size() > self._decoder.caches.bytes:
            stay = len(running.rows) // 2
            if not stay and not others:
                return
            self._decoder.hungry = self._decoder.hungry or self
            self._ready.extendleft(reversed(running.leave(stay)))

    def _sweep(self) -> None:
        self.running = [running for running in self.running if running.rows]

    def _let_go(self) -> None:
        """Rows that nobody wants any more leave, as far as they got."""
        for request in {request: None for request, _ in self._ready}:
            if request.abandoned():
                placeless = [pair for pair in self._ready if pair[0] is request]
                self._ready = deque(pair for pair in self._ready if pair[0] is not request)
                for _ in placeless:
                    _leave(request)
        for running in self.running:
            running.let_go()
        self._sweep()

    def _open(self, request: Request, read: Read | Exception | None) -> None:
        """Its rows, and the log-probabilities of its prompt."""
        plain, job = self._decoder.plain, request.job
        if request.abandoned():
            request.settle(session_ended())
            return
        try:
            request.rows = [plain.row(job, position) for position in range(job.n)]
            finish(plain, request, read)
        except Exception as error:
            _log(error)
            request.settle(error)
            return
        for row in request.rows:
            row.limit = min(row.limit, self._decoder.caches.most_tokens - len(job.prompt))
        request.unfinished = sum(row.limit > 0 for row in request.rows)
        self._ready.extend((request, row) for row in request.rows if row.limit > 0)
        if not request.unfinished:
            _answer(request)

    def _join(self) -> None:
        """Gives waiting rows their places."""
        places = self._decoder.caches.rows - sum(len(running.rows) for running in self.running)
        if not self._ready and self._decoder.hungry is self:
            self._decoder.hungry = None
        if not self._ready or places < min(self._decoder.caches.rows // FEW, len(self._ready)) or places < 1:
            return
        places = self._places_by_room(min(places, len(self._ready)))
        newcomers = [self._ready.popleft() for _ in range(places)]
        groups = _computed_at_once(newcomers)
        while groups:
            rows = groups.popleft()
            try:
                self._start(rows)
            except BaseException:
                self._ready.extendleft(reversed([pair for group in groups for pair in group]))
                raise

    def _places_by_room(self, places: int) -> int:
        """How many of the next rows, in their order, there is memory for."""
        decoder = self._decoder
        if decoder.hungry not in (None, self):
            return 0
        open_one = self._open_one()
        batch = open_one.batch if open_one else self._fresh_batch()
        others = decoder.used(open_one)
        lengths = [len(row.job.prompt) + len(row.tokens) for _, row in islice(self._ready, places)]
        while places and others + batch.size(places, max(lengths[:places])) > decoder.caches.bytes:
            places = places // 2 if places > 8 else places - 1
        if not places and not others and not (open_one and open_one.rows):
            places = 1
        decoder.hungry = None if places else self
        return places

    def _fresh_batch(self) -> SlotBatch | GeneralBatch:
        if self._fresh is None:
            self._fresh = self._decoder.new_batch(self.adapter)
        return self._fresh

    def _open_one(self) -> _Running | None:
        return next((running for running in self.running if running.batch.joinable), None)

    def _start(self, rows: list[tuple[Request, Row]]) -> None:
        open_one = self._open_one()
        if open_one is None:
            open_one = _Running(self._decoder, self._fresh_batch())
            self._fresh = None
            self.running.append(open_one)
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
        logits = self.batch.join([row.text() for _, row in rows])
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

    def leave(self, stay: int) -> list[tuple[Request, Row]]:
        """All rows but so many, which have got furthest, go; -> those, to be taken in again later."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i][1].tokens), reverse=True)
        leaving = [self.rows[i] for i in order[stay:]]
        if stay:
            self._keep(self.batch.drop(order[stay:]))
            self.batch.shrink()
        else:
            self.rows = []
        return leaving

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
        self._keep(self.batch.drop(ended))
        for request in leaving:
            _leave(request)

    def _keep(self, order: list[int]) -> None:
        self.rows = [self.rows[i] for i in order]
        self._tokens = self._tokens[torch.tensor(order, dtype=torch.long, device=self._tokens.device)]
        self._draw = None


def _computed_at_once(newcomers: list[tuple[Request, Row]]) -> deque[list[tuple[Request, Row]]]:
    """Groups of rows whose distinct prompts are worked through together."""
    newcomers = sorted(newcomers, key=lambda pair: len(pair[1].job.prompt) + len(pair[1].tokens))
    groups: deque[list[tuple[Request, Row]]] = deque()
    prompts: set[tuple[int, ...]] = set()
    for pair in newcomers:
        prompt = tuple(pair[1].text())
        if not groups or ((len(prompts) + 1) * len(prompt) > PREFILL_TOKENS and prompt not in prompts):
            groups.append([])
            prompts = set()
        groups[-1].append(pair)
        prompts.add(prompt)
    return groups


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
