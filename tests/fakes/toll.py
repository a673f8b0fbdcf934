"""A way to a real server that can be closed: while `closed` holds a status, every request gets it, with a word in place of an answer."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_OURS = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "accept-encoding"}


class Toll:
    """Passes everything on to `url`, until it is closed."""

    def __init__(self, url: str):
        toll = self
        self.closed = 0
        self.refused = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if toll.closed:
                    toll.refused += 1
                    self._answer(toll.closed, b'{"detail": "not now"}', {"Content-Type": "application/json"})
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _OURS}
                with httpx.Client(trust_env=False, timeout=120) as client:
                    reply = client.request(self.command, url + self.path, content=body, headers=headers)
                self._answer(reply.status_code, reply.content, {n: v for n, v in reply.headers.items() if n.lower() not in _OURS})

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = _pass_on

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
