"""An endpoint that says what it is told to, over real HTTP: the streams and errors that our server gives, with pauses set by the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Crowded(ThreadingHTTPServer):
    request_queue_size = 256  # a lesson asks dozens of questions at once
    daemon_threads = True


class SayingServer:
    """`say` is what answers each conversation. Also an Endpoint, as engine.endpoints gives them."""

    base_model = "nano"

    def __init__(self, say: Callable[[dict[str, Any]], str] = lambda body: f"echo: {body['messages'][-1]['content']}"):
        self.say, self.bodies, self.lives = say, [], True
        self.refuse: tuple[int, dict[str, Any]] | None = None
        self.break_off = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.gone = threading.Event()
        self._http = _Crowded(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def ready(self, say: Callable[[str], None]) -> None:
        say("loading model weights")

    def alive(self) -> bool:
        return self.lives

    @property
    def chat_url(self) -> str:
        return f"{self.url}/v1"

    def key(self) -> str:
        return "secret"

    def close(self) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append({**body, "path": self.path, "authorization": self.headers["Authorization"]})
                if outer.refuse:
                    return self._whole(*outer.refuse)
                if self.path == "/v1/completions":
                    return self._whole(200, outer._scored(body))
                if not body.get("stream"):
                    message = {"role": "assistant", "content": outer.say(body)}
                    return self._whole(200, {"choices": [{"message": message, "finish_reason": "stop"}]})
                try:
                    self._stream(outer.say(body))
                except OSError:
                    outer.gone.set()

            def _whole(self, status: int, values: dict[str, Any]) -> None:
                data = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for number, word in enumerate(text.split(" ")):
                    self._event({"choices": [{"delta": {"content": (" " if number else "") + word}, "finish_reason": None}]})
                    while not outer.go_on.wait(0.05):
                        # Writing is how a server notices that nobody listens any more.
                        self._event({"choices": []})
                if outer.break_off:
                    return
                self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                self._event({"choices": [], "usage": {"completion_tokens": len(text.split(" "))}})
                self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, values: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps(values)}\n\n".encode())
                self.wfile.flush()

        return Handler

    def _scored(self, body: dict[str, Any]) -> dict[str, Any]:
        """Each token by its number, certain to a half; the next number is as likely."""
        tokens = [str(token) for token in body["prompt"]]
        best = [{token: -0.6931471805599453, str(int(token) + 1): -0.6931471805599453} for token in tokens]
        scored = {"tokens": tokens, "token_logprobs": [None, *[-0.6931471805599453] * (len(tokens) - 1)], "top_logprobs": [None, *best[1:]]}
        return {"choices": [{"logprobs": scored}]}
