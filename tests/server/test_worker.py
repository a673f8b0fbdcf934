"""The one thread: order, batches, errors, and what becomes of requests whose client is gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engine.errors import DataError, StorageError
from engine.server.worker import Future, Task, Worker


async def until(holds: Callable[[], object]) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.01)


def play(story: Callable[[Worker, asyncio.AbstractEventLoop], list[Future]], rows: int = 8) -> list[Any]:
    """The results of the futures that the story put to a worker; it starts when all are there."""

    async def run() -> list[Any]:
        worker = Worker(rows)
        futures = story(worker, asyncio.get_running_loop())
        worker.start()
        for future in futures:
            assert await future.wait(60)
        worker.stop()
        return [future.result for future in futures]

    return asyncio.run(run())


def test_tasks_run_in_order_on_one_thread() -> None:
    seen: list[tuple[int, int]] = []

    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        futures = [Future(str(i), loop) for i in range(20)]
        for i, future in enumerate(futures):

            def work(i: int = i) -> dict[str, int]:
                seen.append((i, threading.get_ident()))
                return {"i": i}

            worker.put(Task(future, work))
        return futures

    assert play(story) == [{"i": i} for i in range(20)]
    assert [i for i, _ in seen] == list(range(20)) and len({thread for _, thread in seen}) == 1


def test_alike_tasks_are_run_together_up_to_the_limit() -> None:
    batches: list[list[str]] = []

    def together(payloads: Sequence[str]) -> list[bytes]:
        batches.append(list(payloads))
        return [payload.encode() for payload in payloads]

    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        futures = []
        for key, payload, rows in (("a", "a1", 3), ("b", "b1", 1), ("a", "a2", 4), ("a", "a3", 2), ("a", "a4", 1), ("b", "b2", 20)):
            futures.append(Future(payload, loop))
            worker.put(Task(futures[-1], dict, key, payload, together, rows))
        return futures

    assert play(story) == [b"a1", b"b1", b"a2", b"a3", b"a4", b"b2"]
    assert batches == [["a1", "a2", "a4"], ["b1"], ["a3"], ["b2"]]


def test_errors_are_results() -> None:
    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        def fails(error: Exception) -> Callable[[], dict]:
            def work() -> dict:
                raise error

            return work

        known = [DataError("bad row", "Mend it.", where="datum 3"), StorageError("full", "Make room.")]
        errors = [*known, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), KeyError("x")]
        futures = [Future(str(i), loop) for i in range(5)]
        for future, error in zip(futures, errors, strict=False):
            worker.put(Task(future, fails(error)))
        worker.put(Task(futures[4], lambda: {"fine": True}))
        return futures

    data, storage, memory, bug, fine = play(story)
    assert data == {"error": "datum 3: bad row. Mend it.", "category": "user", "kind": "DataError"}
    assert (storage["error"], storage["category"]) == ("full. Make room.", "server")
    assert "Use smaller batches" in memory["error"]
    assert bug["category"] == "server" and "KeyError" in bug["error"]
    assert fine == {"fine": True}


def test_the_work_of_a_client_that_is_gone_is_dropped() -> None:
    ran: list[str] = []

    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        gone, here = Future("gone", loop), Future("here", loop)
        worker.put(Task(gone, lambda: ran.append("gone") or {}, cancelled=lambda: True))
        worker.put(Task(here, lambda: ran.append("here") or {}))
        return [gone, here]

    assert "session ended" in play(story)[0]["error"] and ran == ["here"]


def test_a_future_finishes_once() -> None:
    async def run() -> None:
        future = Future("x", asyncio.get_running_loop())
        assert not await future.wait(0.01)
        future.finish({"n": 1})
        future.finish({"n": 2})
        future.fail(ValueError("late"))
        assert await future.wait(1) and future.result == {"n": 1}

    asyncio.run(run())


class Endless:
    """Stepwise work that never ends, and how long it was worked on."""

    busy = True

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        began = time.monotonic()
        time.sleep(seconds)
        self.seconds += time.monotonic() - began


def test_tasks_and_stepwise_work_share_the_time() -> None:
    async def run() -> tuple[float, float]:
        steps = Endless()
        worker = Worker(stepwise=steps)
        loop = asyncio.get_running_loop()
        queue = [Future(str(i), loop) for i in range(10)]
        for future in queue:
            worker.put(Task(future, lambda: time.sleep(0.05) or {"fine": True}))
        started = time.monotonic()
        worker.start()
        assert await queue[-1].wait(60)
        shared, both = steps.seconds, time.monotonic() - started
        await until(lambda: steps.seconds > shared + 0.1)
        worker.stop()
        return shared, both

    shared, both = asyncio.run(run())
    assert 0.35 < shared / both < 0.65, "half of the time each"


def test_a_brief_task_goes_first_and_a_failing_one_harms_nobody() -> None:
    ran: list[str] = []

    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        futures = [Future(name, loop) for name in ("task", "brief", "broken")]

        def hand_over() -> None:
            ran.append("brief")
            futures[1].finish({"later": True})

        def fails() -> None:
            raise DataError("no such weights", "Save them.")

        worker.put(Task(futures[0], lambda: ran.append("task") or {}))
        worker.put_first(Task(futures[1], hand_over))
        worker.put_first(Task(futures[2], fails))
        return futures

    task, brief, broken = play(story)
    assert (task, brief, broken["kind"], ran) == ({}, {"later": True}, "DataError", ["brief", "task"])


def test_lanes_get_equal_time_however_much_waits_in_them() -> None:
    ran: list[str] = []

    def task(lane: str, seconds: float, loop: asyncio.AbstractEventLoop) -> Task:
        def work() -> dict[str, bool]:
            time.sleep(seconds)
            ran.append(lane)
            return {"fine": True}

        return Task(Future(lane, loop), work, lane=lane)

    def story(worker: Worker, loop: asyncio.AbstractEventLoop) -> list[Future]:
        tasks = [task("many", 0.01, loop) for _ in range(20)]
        tasks += [task("late", 0.01, loop) for _ in range(5)] + [task("heavy", 0.2, loop) for _ in range(2)]
        for one in tasks:
            worker.put(one)
        return [one.future for one in tasks]

    play(story)
    assert ran[:3] == ["many", "late", "heavy"]
    assert ran[:12].count("late") == 5, "it waits for its turn, not for the end of a long queue"
    second = [i for i, lane in enumerate(ran) if lane == "heavy"][1]
    assert second >= 9, "one that takes longer than all the others together waits until the others have had as much"


def test_what_is_held_waits_and_keeps_nobody_else_waiting() -> None:
    ran: list[str] = []
    held = True

    async def run() -> None:
        worker, loop = Worker(), asyncio.get_running_loop()
        futures = [Future(name, loop) for name in ("first", "second", "other")]
        worker.put(Task(futures[0], lambda: ran.append("first") or {}, held=lambda: held, lane="quiet"))
        worker.put(Task(futures[1], lambda: ran.append("second") or {}, lane="quiet"))
        worker.put(Task(futures[2], lambda: ran.append("other") or {}, lane="loud"))
        worker.start()
        assert await futures[2].wait(60)
        assert not await futures[1].wait(0.2) and worker.waiting == 2
        nonlocal held
        held = False
        assert await futures[1].wait(60)
        worker.stop()

    asyncio.run(run())
    assert ran == ["other", "first", "second"]


def test_it_rests_once_after_work_and_once_more_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.server.worker.REST_SECONDS", 0.1)
    rests: list[float] = []

    async def run() -> None:
        worker, loop = Worker(on_rest=lambda: rests.append(time.monotonic())), asyncio.get_running_loop()
        worker.start()
        await asyncio.sleep(0.3)
        assert not rests, "nothing was done yet"
        future = Future("one", loop)
        worker.put(Task(future, dict))
        assert await future.wait(60)
        await until(lambda: rests)
        await asyncio.sleep(0.5)
        assert len(rests) == 1
        worker.rest_again()
        await until(lambda: len(rests) == 2)
        await asyncio.sleep(0.5)
        worker.stop()

    asyncio.run(run())
    assert len(rests) == 2
