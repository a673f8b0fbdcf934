"""Keys from the dashboard to the runner: over loopback, both sides proving that they know a secret of the data directory.

    runner     -> its nonce
    dashboard  -> its nonce, proof
    runner     -> proof
    dashboard  -> keys, with a proof over them
    runner     -> ok

A proof is an HMAC over both nonces, the port, and which side speaks, so that nothing can be played back or passed on by whoever
sits on the port of a runner that is gone. Knows nothing of what keys are for; writes none down.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from engine import keys, paths

_NONCE, _PROOF, _LENGTH = 32, 32, 4
_MOST = 1 << 20
_PATIENCE_S = 5.0


class Desk:
    """Where the runner takes keys in, for as long as it lives."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Taking)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="desk", daemon=True).start()

    def close(self) -> None:
        """Takes in no more."""
        self._server.shutdown()
        self._server.server_close()


Keys = dict[tuple[str, str], str]


def deliver(port: int, held: Keys, gone: Collection[tuple[str, str]] = ()) -> None:
    """Hands over these keys, by (owner, name), and takes back those that are `gone`. Raises OSError where the runner isn't there."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as line:
        theirs, mine = _read(line, _NONCE), secrets.token_bytes(_NONCE)
        line.sendall(mine + _proof("dashboard", theirs + mine, port))
        if not hmac.compare_digest(_read(line, _PROOF), _proof("runner", theirs + mine, port)):
            raise ConnectionError("whoever listens there isn't the runner")
        told = {"held": [[owner, name, value] for (owner, name), value in held.items()], "gone": sorted(gone)}
        body = json.dumps(told).encode()
        line.sendall(len(body).to_bytes(_LENGTH, "big") + _proof("keys", theirs + mine + body, port) + body)
        if _read(line, 2) != b"ok":
            raise ConnectionError("the runner didn't take the keys")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hung up, or can't prove anything, is none of our business; their words stay out of the log."""


class _Taking(socketserver.BaseRequestHandler):
    """One connection."""

    request: socket.socket

    def handle(self) -> None:
        line, port = self.request, self.server.server_address[1]
        line.settimeout(_PATIENCE_S)
        mine = secrets.token_bytes(_NONCE)
        line.sendall(mine)
        theirs, proof = _read(line, _NONCE), _read(line, _PROOF)
        if not hmac.compare_digest(proof, _proof("dashboard", mine + theirs, port)):
            return
        line.sendall(_proof("runner", mine + theirs, port))
        length = int.from_bytes(_read(line, _LENGTH), "big")
        if length > _MOST:
            return
        proof, body = _read(line, _PROOF), _read(line, length)
        if not hmac.compare_digest(proof, _proof("keys", mine + theirs + body, port)):
            return
        _take(json.loads(body))
        line.sendall(b"ok")


def _take(told: dict[str, list[list[str]]]) -> None:
    for owner, name in told["gone"]:
        keys.unhold(owner, name)
    for owner, name, value in told["held"]:
        keys.hold(owner, name, value)


def _proof(side: str, said: bytes, port: int) -> bytes:
    return hmac.new(keys.secret(paths.home() / "runner.key"), f"{side} {port} ".encode() + said, hashlib.sha256).digest()


def _read(line: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = line.recv(count - len(found))
        if not piece:
            raise ConnectionError("the other side hung up")
        found += piece
    return found


class Courier:
    """Sees to it, from the process that was given keys, that whichever runner serves the data directory has them."""

    def __init__(self) -> None:
        self._lock, self._changed = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def go(self) -> None:
        """After keys have changed. Returns at once."""
        self._changed.set()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._round, name="courier", daemon=True)
                self._thread.start()

    def _round(self) -> None:
        from engine.jobs import host

        runner: tuple[Any, ...] = ()
        given: Keys = {}
        while True:
            self._changed.wait(0.5)
            self._changed.clear()
            held, info = keys.held(), host.runner_info()
            if info and info.get("port"):
                there = info["pid"], info["started_at"], info["port"]
                known = given if there == runner else {}
                if known != held:
                    with suppress(OSError):
                        deliver(int(info["port"]), held, known.keys() - held.keys())
                        runner, given = there, held
            with self._lock:
                if not held and not self._changed.is_set():
                    self._thread = None
                    return


courier = Courier()
