"""A real dashboard, and somebody who looks at a page of it over and over, as a browser does. Knows nothing of what becomes of it."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.running import dashboard_answers, dashboard_process, free_port

LOOK_S = 1.0


class Dashboard:
    """`streamlit run` on a data directory; `seen` counts pages that were put together whole, `text` is what stood on the last one,
    `shown` holds what they complained of."""

    def __init__(self, home: Path, page: str, query: str = ""):
        self._home, self._page, self._query = home, page, query
        self._port = free_port()
        self.seen, self.text, self.shown = 0, "", []
        self.process: subprocess.Popen | None = None
        self._ended = threading.Event()
        self.start()
        self._visitor = threading.Thread(target=self._visit, daemon=True)
        self._visitor.start()

    def look_at(self, page: str, query: str) -> None:
        """From now on."""
        self._page, self._query = page, query

    def start(self) -> None:
        """Again, where it was killed."""
        self.process = dashboard_process(self._home, self._port, self._home / "dashboard.out")

    def answers(self) -> bool:
        """Whether it is up."""
        return dashboard_answers(self._port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def close(self) -> None:
        """Asks it to end."""
        self._ended.set()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._visitor.join(20)

    def _visit(self) -> None:
        while not self._ended.is_set():
            # It is killed and comes back; so does whoever looks.
            with suppress(OSError, WebSocketException):
                self._look()
            self._ended.wait(LOOK_S)

    def _look(self) -> None:
        url = f"ws://127.0.0.1:{self._port}/_stcore/stream"
        origin = f"http://127.0.0.1:{self._port}"
        with connect(url, subprotocols=["streamlit"], origin=origin, max_size=None, proxy=None, open_timeout=10) as line:
            while not self._ended.is_set():
                asked = BackMsg()
                asked.rerun_script.page_name, asked.rerun_script.query_string = self._page, self._query
                line.send(asked.SerializeToString())
                self._hear(line)
                self._ended.wait(LOOK_S)

    def _hear(self, line) -> None:
        """Until the page is whole."""
        deadline, text = time.monotonic() + 60, []
        while time.monotonic() < deadline:
            said = ForwardMsg()
            said.ParseFromString(line.recv(timeout=60))
            kind = said.WhichOneof("type")
            if kind == "delta" and said.delta.new_element.WhichOneof("type") == "exception":
                self.shown.append(said.delta.new_element.exception.message[:300])
            if kind == "delta":
                text.append(said.delta.new_element.markdown.body)
            if kind == "script_finished":
                self.seen, self.text = self.seen + 1, " ".join(text)
                return
