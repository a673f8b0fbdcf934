"""Connections, below the requests: a request's head is short and comes soon, and a client that hangs up is noted as gone.

A killed process's connections are closed by its system, whatever it was doing; those of one that is merely halted stay open.
Knows no routes.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.server.sessions import Session, talking

HEAD_BYTES = 64 * 2**10
HEAD_SECONDS = 20.0


class Connection(HttpToolsProtocol):
    """One of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Somebody is there; the key hasn't been looked at."""
        super().connection_made(transport)
        self._heard: dict[str, Session] = {}
        self._closed_by_client = False
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        """Cuts off heads without an end, which the parser would go on collecting."""
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(f"The head of a request has to be shorter than {HEAD_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        """The next request of the connection."""
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is the body, whose size the guard sees to."""
        self._end_head()
        # The task that answers the request is made now and takes this along.
        talking.set(self._heard)
        super().on_headers_complete()

    def eof_received(self) -> None:
        """The client has closed its end."""
        self._closed_by_client = True
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """By the client, or by this server after a while without requests: only the first says anything of the client."""
        self._end_head()
        if self._closed_by_client or exc is not None:
            for session in self._heard.values():
                session.hung_up = True
        super().connection_lost(exc)

    def _begin_head(self) -> None:
        self._end_head()
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, f"The head of a request has to come within {HEAD_SECONDS:.0f} s.")

    def _end_head(self) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, "_timer", None)
        if timer is not None:
            timer.cancel()
        self._timer: asyncio.TimerHandle | None = None

    def _refuse(self, why: str) -> None:
        self._end_head()
        if not self.transport.is_closing():
            self.send_400_response(why)
