"""A server that speaks as much of OpenAI's API as judges need, over real HTTP: it answers, refuses and stumbles as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a request is answered with: text of the assistant's, or (status, body, headers).
Reply = str | tuple[int, dict[str, Any], dict[str, str]]


class _Crowded(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


class JudgeServer:
    """`reply` is given each request's body and its number, from 1. `models` are listed, to those who bring `key` if one is wanted; without
    any it has no list."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply], models: tuple[str, ...] = (), key: str = ""):
        self.reply, self.bodies, self.authorizations = reply, [], []
        self.models, self.key = models, key
        self.open, self.most_open = 0, 0
        self._lock = threading.Lock()
        self._http = _Crowded(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                status, values = 200, {"object": "list", "data": [{"id": name} for name in outer.models]}
                if outer.key and self.headers["Authorization"] != f"Bearer {outer.key}":
                    status, values = 401, {"error": {"message": "who are you?"}}
                elif not outer.models or self.path != "/v1/models":
                    status, values = 404, {"error": {"message": "no such page"}}
                self.give(status, values, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append({**body, "path": self.path})
                    outer.authorizations.append(self.headers["Authorization"])
                    number = len(outer.bodies)
                    outer.open += 1
                    outer.most_open = max(outer.most_open, outer.open)
                found = outer.reply(body, number)
                with outer._lock:
                    outer.open -= 1
                if isinstance(found, str):
                    message = {"role": "assistant", "content": found}
                    usage = {"prompt_tokens": 10, "completion_tokens": 2}
                    found = 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}, {}
                self.give(*found)

            def give(self, status: int, values: dict[str, Any], headers: dict[str, str]) -> None:
                data = json.dumps(values).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        return Handler
