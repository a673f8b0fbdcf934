"""A way to a real server on which things go wrong by a plan: connections that are cut before or after the server has done its work,
answers that are late, refused or never come.

Each rule says on which requests (by path, from the n-th on, so many of them, by chance or all) what happens. Knows nothing of what is said.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_OURS = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "accept-encoding"}


@dataclass
class Rule:
    """`what`: "cut request" (it never arrives), "cut answer" (the work is done, half of the answer comes), "status", "delay" (the answer
    is late) or "hang" (it arrives, and `seconds` later the line goes dead). `path`: what the request's path holds; "" for all.

    It holds once `begins` = (path, count) requests were passed on, leaves `after` more alone, and then happens by `chance`, `count` times.
    """

    what: str
    path: str = ""
    after: int = 0
    count: float = float("inf")
    chance: float = 1.0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.5
    begins: tuple[str, int] = ("", 0)
    met: int = field(default=0, init=False)
    happened: int = field(default=0, init=False)


class Faulty:
    """Passes everything on to `url`, but for what the rules say; the first that applies to a request is what happens."""

    def __init__(self, url: str, rules: Sequence[Rule] = (), seed: int = 0):
        self.rules = list(rules)
        self.faults: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self._to, self._chance, self._lock = url, random.Random(seed), threading.Lock()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, path: str) -> Rule | None:
        with self._lock:
            for rule in self.rules:
                kind, passed = rule.begins
                if rule.path not in path or rule.happened >= rule.count or self.passed[kind] < passed:
                    continue
                rule.met += 1
                if rule.met > rule.after and self._chance.random() < rule.chance:
                    rule.happened += 1
                    self.faults[rule.what if rule.what != "status" else str(rule.status)] += 1
                    return rule
            self.passed[path.rpartition("/")[2]] += 1
        return None

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                rule = proxy._fault(self.path.partition("?")[0])
                what = rule.what if rule else ""
                length = int(self.headers.get("Content-Length", 0))
                if what == "cut request":
                    self.rfile.read(length // 2)
                    self._cut()
                    return
                body = self.rfile.read(length)
                if what == "status":
                    headers = {"Content-Type": "application/json"} | rule.headers
                    self._answer(rule.status, b'{"detail": "not now"}', headers)
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _OURS}
                with httpx.Client(trust_env=False, timeout=120) as client:
                    reply = client.request(self.command, proxy._to + self.path, content=body, headers=headers)
                if what == "hang":
                    proxy._ended.wait(rule.seconds)
                    self._cut()
                    return
                if what == "delay":
                    time.sleep(rule.seconds)
                found = {name: value for name, value in reply.headers.items() if name.lower() not in _OURS}
                self._answer(reply.status_code, reply.content, found, half=what == "cut answer")

            def _answer(self, status: int, body: bytes, headers: dict[str, str], *, half: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                # Whoever asked may have stopped waiting.
                with suppress(OSError):
                    self.end_headers()
                    self.wfile.write(body[: len(body) // 2] if half else body)
                if half:
                    self._cut()

            def _cut(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_POST = do_PUT = do_DELETE = _pass_on

            def log_message(self, *_: object) -> None:
                pass

        return Handler
