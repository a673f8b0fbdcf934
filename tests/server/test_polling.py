"""Many futures at once, copies of a sampling client, and cancelling: by the official SDK and by hand."""

from __future__ import annotations

import asyncio
import pickle
import time

import httpx
import pytest
import tinker
from tinker import types

from engine.server import rest
from engine.server.service import Service
from tests.server.alone import Alone, Clock
from tests.server.harness import RunningServer, text_tokens
from tests.server.raw import Session, rows

INPUT = types.ModelInput.from_ints(text_tokens("<|user|>Spell keyboard<|end|><|assistant|>"))
SHORT = types.SamplingParams(max_tokens=3, seed=1)


def asked(session: Session) -> list[str]:
    """The ids of three samples that have finished."""
    sampler = session.sampler()
    ids = [session.ok("asample", session.sample_body(sampler, n, [5, 6], seed=1))["request_id"] for n in range(3)]
    for request_id in ids:
        assert session.retrieve(request_id).status_code == 200
    return ids


def poll(session: Session, cursor: int = 0, **more: object) -> tuple[list[str], int]:
    target = {"type": "sampling_session", "sampling_session_id": session.sampler(), **more.pop("target", {})}
    reply = session.ok("retrieve_futures", {"target": target, "prev_cursor": cursor, "timeout": 0, **more})
    return [told["request_id"] for told in reply["completions"]], reply["cursor"]


def test_the_sdks_poller_carries_many_samples(server: RunningServer) -> None:
    client = server.client()
    # The server leaves the flag off; the client's own code for it is what is wanted here.
    flags = client.holder.get_client_config().model_copy(update={"sample_use_retrieve_futures": True})
    client.holder._client_config = flags
    sampler = client.create_sampling_client(base_model="nano").result(timeout=60)
    first = sampler.sample(INPUT, 1, SHORT).result(timeout=60)
    futures = [sampler.sample(INPUT, 1, SHORT) for _ in range(40)]
    assert all(list(f.result(timeout=60).sequences[0].tokens) == list(first.sequences[0].tokens) for f in futures)
    assert sampler._futures_poller is not None and sampler._futures_poller._cursor == 41
    with pytest.raises(tinker.BadRequestError, match="top_p"):
        sampler.sample(INPUT, 1, types.SamplingParams(top_p=7.0)).result(timeout=60)
    client.close("success").result(timeout=20)


def test_the_cursor_goes_on_where_it_was(session: Session) -> None:
    ids = asked(session)
    found, cursor = poll(session)
    assert (sorted(found), cursor) == (sorted(ids), 3)
    assert poll(session, cursor) == ([], 3)
    again = session.ok("asample", session.sample_body(session.sampler(), 3, [5, 6]))["request_id"]
    session.retrieve(again)
    assert poll(session, cursor) == ([again], 4)
    assert poll(session, target={"cloned_sampler_id": 1}) == ([], 0), "another copy's"


def test_it_waits_for_news_and_no_longer(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LONGEST_POLL", 0.3)

    async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
        session_id = (await client.post("create_session", json={})).json()["session_id"]
        body = {"session_id": session_id, "sampling_session_seq_id": 0, "base_model": "nano"}
        sampler = (await client.post("create_sampling_session", json=body)).json()["sampling_session_id"]
        question = {"target": {"sampling_session_id": sampler}}
        started = time.monotonic()
        assert (await client.post("retrieve_futures", json=question)).json() == {"completions": [], "cursor": 0}
        assert time.monotonic() - started >= 0.3
        monkeypatch.setattr(rest, "LONGEST_POLL", 30)
        waiting = [asyncio.create_task(client.post("retrieve_futures", json=question)) for _ in range(2)]
        await asyncio.sleep(0.05)
        prompt = {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [5]}]}, "sampling_params": {"max_tokens": 2}}
        sample = await client.post("asample", json={"sampling_session_id": sampler, "seq_id": 7, **prompt})
        for answer in await asyncio.wait_for(asyncio.gather(*waiting), 10):
            (told,) = answer.json()["completions"]
            assert (told["request_id"], told["state"]) == (sample.json()["request_id"], "finished")
            assert told["response_payload_uncompressed_size"] > 4
        # What the client says it has is let go of like what it fetched.
        await client.post("retrieve_futures", json={**question, "timeout": 0, "retrieved_request_ids": [told["request_id"], "x"]})
        clock.ahead(130)
        service.upkeep()
        gone = await client.post("retrieve_future", json={"request_id": told["request_id"]})
        assert gone.status_code == 404

    alone.play(story)


def test_copies_of_a_client_never_share_a_number(service: tinker.ServiceClient) -> None:
    sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
    copies = [pickle.loads(pickle.dumps(sampler)) for _ in range(2)]
    answers = [copy.sample(INPUT, 1, SHORT).result(timeout=60).sequences[0].tokens for copy in (*copies, sampler)]
    assert len({tuple(tokens) for tokens in answers}) == 1
    assert [copy._cloned_sampler_id for copy in copies] == [1, 2]


class TestCancelling:
    def test_a_sample_that_waits_is_never_made(self, session: Session) -> None:
        sampler = session.sampler()
        long = session.sample_body(sampler, 0, [5], n=32, max_tokens=100, stop=[])
        held_up = session.ok("asample", long)["request_id"]
        waiting = session.ok("asample", session.sample_body(sampler, 1, [5], n=1024, max_tokens=400, stop=[]))["request_id"]
        started = time.monotonic()
        assert session.ok("cancel_future", {"request_id": waiting}) == {}
        told = session.result(waiting)
        assert "cancelled" in told["error"] and time.monotonic() - started < 20
        assert session.ok("cancel_future", {"request_id": waiting}) == {}, "twice is harmless"
        session.ok("cancel_future", {"request_id": held_up})
        assert "cancelled" in session.result(held_up)["error"]
        after = session.ok("asample", session.sample_body(sampler, 2, [5]))["request_id"]
        assert session.retrieve(after).headers["content-type"] == "application/x-protobuf"
        assert time.monotonic() - started < 30
        assert poll(session)[1] == 3

    def test_what_is_done_stays_done(self, session: Session) -> None:
        request_id = asked(session)[0]
        before = session.retrieve(request_id).content
        session.ok("cancel_future", {"request_id": request_id})
        assert session.retrieve(request_id).content == before

    def test_a_runs_requests_have_their_turn(self, session: Session) -> None:
        model_id = session.model()
        reply = session.train(model_id, 1, rows())
        refused = session.post("cancel_future", {"request_id": reply.json()["request_id"]})
        assert refused.status_code == 400 and "only samples" in refused.json()["detail"]
        assert session.loss(reply) > 0
        assert session.post("cancel_future", {"request_id": "nobody:1"}).status_code == 404

    def test_the_sdk_cancels_what_nobody_waits_for(self, server: RunningServer) -> None:
        client = server.client()
        assert client.holder.get_client_dynamic_config().sample_cancel_enabled
        sampler = client.create_sampling_client(base_model="nano").result(timeout=60)
        sampler.sample(INPUT, 1, SHORT).result(timeout=60)
        before = sampler.sample(INPUT, 32, types.SamplingParams(max_tokens=100, stop=[]))
        dropped = sampler.sample(INPUT, 1000, types.SamplingParams(max_tokens=400, stop=[]))
        time.sleep(0.3)
        dropped.future().cancel()
        before.future().cancel()
        started = time.monotonic()
        assert sampler.sample(INPUT, 1, SHORT).result(timeout=60).sequences
        assert time.monotonic() - started < 30
        client.close("success").result(timeout=20)
