"""A proxy on the same machine that gives nothing of itself away: it names this machine as the host, and adds no header."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes on whatever comes to `port`; `origin`: it also rewrites where a page says that it came from. A context manager."""

    def __init__(self, to: int, *, origin: bool = False):
        self._to, self._origin = to, origin
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := client.recv(65536)):
                    return
                head += more
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                server.sendall(self._rewritten(head))
                back = threading.Thread(target=_pour, args=(server, client), daemon=True)
                back.start()
                _pour(client, server)
                back.join()

    def _rewritten(self, message: bytes) -> bytes:
        head, end, body = message.partition(b"\r\n\r\n")
        here = b"localhost:%d" % self._to
        head = re.sub(rb"(?im)^host:[^\r\n]*", b"Host: " + here, head)
        if self._origin:
            head = re.sub(rb"(?im)^(origin|referer):[^\r\n]*", rb"\1: http://" + here, head)
        if b"pgrade: websocket" not in head:
            # One request a connection, so that each head passes by here.
            head = re.sub(rb"(?im)^connection:[^\r\n]*", b"Connection: close", head)
        return head + end + body


def _pour(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)
