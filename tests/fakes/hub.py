"""A model hub on loopback that serves folders: what the hub's client asks for to download a snapshot, and nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """`with FakeHub({"somebody/model": folder}) as hub:` and HF_ENDPOINT=hub.url in the process that downloads."""

    def __init__(self, models: dict[str, Path]):
        hub = self
        self.models, self.requests = models, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.requests.append(self.path)
                hub._answer(self, [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")])

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to take this for the hub, with a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def _answer(self, to: BaseHTTPRequestHandler, parts: list[str]) -> None:
        # api/models/OWNER/NAME[/revision/REV | /tree/REV], or OWNER/NAME/resolve/REV/FILE
        api = parts[:2] == ["api", "models"]
        repo, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        folder = self.models.get(repo)
        if folder is None:
            self._send(to, 401 if api else 404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif api and rest[:1] == ["tree"]:
            self._send(to, 200, json.dumps([self._entry(file) for file in sorted(folder.iterdir())]).encode())
        elif api:
            files = [{"rfilename": file.name, "size": file.stat().st_size} for file in sorted(folder.iterdir())]
            self._send(to, 200, json.dumps({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": files, "tags": []}).encode())
        elif rest[:1] == ["resolve"] and (folder / rest[-1]).is_file():
            data = (folder / rest[-1]).read_bytes()
            self._send(to, 200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, "application/octet-stream")
        else:
            self._send(to, 404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    @staticmethod
    def _entry(file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": hashlib.sha1(file.read_bytes()).hexdigest()}

    @staticmethod
    def _send(
        to: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        to.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            to.send_header(name, value)
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(body)
