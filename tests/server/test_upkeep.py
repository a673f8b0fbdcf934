"""What happens as time goes by: long polls, gaps, results that nobody fetches, sessions that fall silent."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import httpx
import pytest

from engine.server import api, sessions, wire
from engine.server import service as service_module
from engine.server.service import Service
from engine.server.trainer import read_checked
from engine.server.worker import Future, Task
from tests.server.alone import Alone, Clock
from tests.server.raw import rows, training_body


def train(service: Service, body: bytes) -> Future:
    """As the HTTP side hands it over."""
    message = wire.read_train_header(body)
    return service.train(message, partial(read_checked, message, service.base))


def test_a_gap_that_never_fills_fails_what_waits_behind_it(alone: Alone) -> None:
    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        model_id = await alone.model(client)
        late = await client.post("forward_backward", content=training_body(model_id, 2, rows()))
        clock.ahead(300)
        # Others that arrive meanwhile don't make the gap any younger.
        later = await client.post("forward_backward", content=training_body(model_id, 3, rows()))
        service.upkeep()
        assert service.future(late.json()["request_id"]).finished_at is None
        clock.ahead(60)
        service.upkeep()
        for reply in (late, later):
            found = await client.post("retrieve_future", json={"request_id": reply.json()["request_id"]})
            assert "request 1 of this run never arrived" in found.json()["error"]
        onward = await client.post("forward_backward", content=training_body(model_id, 4, rows()))
        found = await client.post("retrieve_future", json={"request_id": onward.json()["request_id"]})
        assert found.headers["content-type"] == "application/x-protobuf"

    alone.play(story)


def test_retrieving_is_a_long_poll(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "POLL_SECONDS", 0.3)

    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        model_id = await alone.model(client)
        body = {"request_id": (await client.post("forward_backward", content=training_body(model_id, 2, rows()))).json()["request_id"]}
        started = time.monotonic()
        pending = await client.post("retrieve_future", json=body)
        assert time.monotonic() - started >= 0.3
        assert (pending.status_code, pending.json()["type"], pending.json()["queue_state"]) == (408, "try_again", "active")
        monkeypatch.setattr(api, "POLL_SECONDS", 30)
        waiting = asyncio.create_task(client.post("retrieve_future", json=body))
        await asyncio.sleep(0.05)
        await client.post("forward_backward", content=training_body(model_id, 1, rows()))
        assert (await asyncio.wait_for(waiting, 60)).status_code == 200

    alone.play(story)


def test_results_are_kept_a_while_and_then_let_go(alone: Alone) -> None:
    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        model_id = await alone.model(client)
        body = {"request_id": (await client.post("forward_backward", content=training_body(model_id, 1, rows()))).json()["request_id"]}
        first = await client.post("retrieve_future", json=body)
        clock.ahead(service_module.KEEP_SECONDS - 10)
        service.upkeep()
        assert (await client.post("retrieve_future", json=body)).content == first.content
        clock.ahead(service_module.KEEP_SECONDS + 10)
        service.upkeep()
        assert (await client.post("retrieve_future", json=body)).status_code == 404
        again = await client.post("forward_backward", content=training_body(model_id, 1, rows()))
        assert again.status_code == 200
        nobodys = {"base_model": "nano", "prompt": {"chunks": [{"tokens": [5]}]}, "sampling_params": {"max_tokens": 1}}
        await service.future((await client.post("asample", json=nobodys)).json()["request_id"]).wait(10)
        clock.ahead(service_module.UNFETCHED_SECONDS + 10)
        service.upkeep()
        assert not service.futures, "not even what nobody ever fetched"

    alone.play(story)


def test_a_silent_session_ends(alone: Alone) -> None:
    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        model_id = await alone.model(client)
        heart = {"session_id": model_id.split(":")[0]}
        clock.ahead(sessions.SESSION_SECONDS - 1)
        service.upkeep()
        assert (await client.post("session_heartbeat", json=heart)).status_code == 200
        clock.ahead(sessions.SESSION_SECONDS - 1)
        service.upkeep()
        assert service.runs and service.idle_seconds() < 1
        clock.ahead(2)
        service.upkeep()
        assert not service.runs and not service.sessions and not service.futures
        assert (await client.post("session_heartbeat", json=heart)).status_code == 410
        clock.ahead(50)
        assert service.idle_seconds() >= 50

    alone.play(story)


def test_nothing_is_computed_for_a_client_that_missed_six_heartbeats(alone: Alone) -> None:
    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        model_id = await alone.model(client)
        session = service.sessions[model_id.split(":")[0]]
        body = {"session_id": session.id, "sampling_session_seq_id": 0, "base_model": "nano"}
        sampler = (await client.post("create_sampling_session", json=body)).json()["sampling_session_id"]
        # No end mark: it would go on to the end of the context.
        long = {"sampling_session_id": sampler, "seq_id": 1, "prompt": {"chunks": [{"tokens": [5]}]}, "num_samples": 8}
        asked = await client.post("asample", json={**long, "sampling_params": {"stop": []}})
        clock.ahead(sessions.QUIET_SECONDS + 1)
        service.worker.put(Task(Future("", asyncio.get_running_loop()), lambda: time.sleep(0.3) or {}))
        trained = train(service, training_body(model_id, 1, rows()))
        session.seen -= sessions.QUIET_SECONDS + 1
        assert not await trained.wait(1.5), "it waits until the client is heard again"
        sampled = service.future(asked.json()["request_id"])
        assert await sampled.wait(60) and "the session ended" in sampled.result["error"]
        assert not service.worker.busy
        assert (await client.post("session_heartbeat", json={"session_id": session.id})).status_code == 200
        assert await trained.wait(60) and isinstance(trained.result, bytes)

    alone.play(story)


def test_who_hangs_up_and_falls_silent_is_gone(alone: Alone) -> None:
    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        first, second, third = [await alone.model(client) for _ in range(3)]
        for model_id in (first, second):
            train(service, training_body(model_id, 2, rows()))
        for model_id in (first, third):
            service.sessions[model_id.split(":")[0]].hung_up = True
        clock.ahead(sessions.QUIET_SECONDS - 1)
        service.upkeep()
        assert {first, second, third} <= set(service.runs)
        await client.post("session_heartbeat", json={"session_id": third.split(":")[0]})
        clock.ahead(2)
        service.upkeep()
        assert set(service.runs) == {second, third}, "one that merely says nothing may come back, and one that came back is there"
        ended = await client.post("session_heartbeat", json={"session_id": first.split(":")[0]})
        assert ended.status_code == 410

    alone.play(story)
