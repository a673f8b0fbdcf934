"""The server's application without a process, on an event loop of the test's own: for what needs its clock turned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from engine.rendering import load_tokenizer
from engine.server import api
from engine.server.checkpoints import CheckpointStore
from engine.server.model import BaseModel
from engine.server.service import Service
from tests.server.harness import NANO


class Clock:
    """time.monotonic, and some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._real, self._ahead = time.monotonic, 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self._real() + self._ahead)

    def ahead(self, seconds: float) -> None:
        self._ahead += seconds


class Alone:
    """A server without a process: its application on an event loop of this thread."""

    def __init__(self, base: BaseModel, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._base, self._folder, self._monkeypatch = base, folder, monkeypatch

    def play(self, story: Story) -> None:
        """`await story(client, service, clock)`."""
        clock = Clock(self._monkeypatch)
        # Upkeep comes when the story says so: a clock that leaps looks to the server as if its process had been halted.
        self._monkeypatch.setattr(api, "UPKEEP_SECONDS", 1e9)

        async def run() -> None:
            def make() -> Service:
                return Service(self._base, "nano", "nano", CheckpointStore(self._folder), load_tokenizer(NANO), asyncio.get_running_loop())

            app = api.build_app(make, compress=False)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1/", timeout=30) as client:
                    await story(client, app.state.service, clock)

        asyncio.run(run())

    async def model(self, client: httpx.AsyncClient) -> str:
        session_id = (await client.post("create_session", json={})).json()["session_id"]
        body = {"session_id": session_id, "model_seq_id": 1, "base_model": "nano", "lora_config": {"rank": 4}}
        reply = (await client.post("create_model", json=body)).json()
        await client.post("retrieve_future", json={"request_id": reply["request_id"]})
        return reply["model_id"]


Story = Callable[[httpx.AsyncClient, Service, Clock], Awaitable[None]]
