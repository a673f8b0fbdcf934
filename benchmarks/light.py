"""The dashboard from app/requirements.txt alone: does it show every page, train and chat, and how much memory does that take?

    python -m venv FOLDER && FOLDER/bin/pip install -r app/requirements.txt
    python benchmarks/light.py FOLDER/bin/python [--steps 30]

Run with the Python that has all of Thinker: it starts the training server (whose memory isn't counted: it stands for the cloud) and a
browser. The dashboard and the runner are the other Python's. Every page is opened as it stands on an empty store and again after a run
on the endpoint `tinker` and a chat with the model that came of it. Stated limit: dashboard and runner together at most 600 MB resident
at any moment, looked at four times a second. Fails where a page shows an error, the run or the chat doesn't come to its end, torch is
in either process, or the limit is passed. Leaves out: many people at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
LIMIT_MB = 600
LAUNCH = """
import sys
from engine import Engine
changes = {"endpoint": "tinker", "training": {"steps": int(sys.argv[1])}, "evaluation": {"skills": False}, "data": {"held_out_max": 40}}
with Engine() as engine:
    print(engine.launch(engine.demo_recipe("piglatin", changes)).id)
"""


class Watch(threading.Thread):
    """The most that the dashboard and all that it started had in memory at a time, in MB; their libraries at the end of each look."""

    def __init__(self, dashboard: int, home: Path):
        super().__init__(daemon=True)
        self._dashboard, self._home = dashboard, home
        self.peak: dict[str, float] = {"dashboard": 0.0, "runner": 0.0, "together": 0.0}
        self.torch = False
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.25):
            now = {"dashboard": self._look(self._dashboard), "runner": self._look(self._runner())}
            now["together"] = sum(now.values())
            self.peak = {name: max(self.peak[name], value) for name, value in now.items()}

    def _runner(self) -> int:
        from engine.jobs import host

        return int((host.runner_info() or {}).get("pid") or 0)

    def _look(self, pid: int) -> float:
        import psutil

        try:
            process = psutil.Process(pid)
            maps = Path(f"/proc/{pid}/maps")
            self.torch |= maps.exists() and "libtorch" in maps.read_text()
            return process.memory_info().rss / 1e6 if pid else 0.0
        except (psutil.Error, OSError):
            return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path, help="the Python that has app/requirements.txt only")
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    # Not resolved: a virtual environment's Python is a link.
    python = options.python.absolute()
    absent = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) for name in ('torch', 'peft', 'datasets')))"
    if subprocess.run([str(python), "-c", absent], check=False).returncode:
        print("this Python has more than app/requirements.txt", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="thinker-light-") as place:
        found = measure(python, Path(place), options.steps)
    print(json.dumps(found))
    ok = not found["torch"] and not found["errors"] and found["state"] == "done" and found["chat"] and found["together_mb"] <= LIMIT_MB
    print("ok" if ok else "FAILED", file=sys.stderr)
    return 0 if ok else 1


def measure(python: Path, place: Path, steps: int) -> dict[str, Any]:
    """Everything, in an empty data directory."""
    from engine import platforms
    from tests.server.harness import KEY, RunningServer

    home = place / "home"
    home.mkdir()
    cloud = RunningServer(place / "cloud")
    os.environ.update(THINKER_HOME=str(home), TINKER_BASE_URL=cloud.url, TINKER_API_KEY=KEY, OMP_WAIT_POLICY="passive")
    port = next(port for port in range(8850, 8950) if platforms.port_is_free(port))
    command = [str(python), "-m", "streamlit", "run", "app/serve.py", "--server.port", str(port), "--server.headless", "true"]
    with (place / "dashboard.log").open("ab") as log:
        dashboard = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    watch = Watch(dashboard.pid, home)
    watch.start()
    try:
        return {**visits(f"http://127.0.0.1:{port}", python, steps), **told(watch)}
    finally:
        watch.over.set()
        dashboard.terminate()
        dashboard.wait(20)
        end_runner()
        cloud.stop()
        print((place / "dashboard.log").read_text()[-2000:], file=sys.stderr)


def told(watch: Watch) -> dict[str, Any]:
    return {"torch": watch.torch, **{f"{name}_mb": round(value) for name, value in watch.peak.items()}}


def end_runner() -> None:
    from engine import platforms
    from engine.jobs import host

    if info := host.runner_info():
        platforms.terminate(info["pid"])
        while host.runner_info():
            time.sleep(0.1)


def visits(url: str, python: Path, steps: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    from app.navigation import PAGES
    from engine import Engine, platforms
    from tests.browser.test_training_browser import FLAGS, READY

    errors: list[str] = []
    with sync_playwright() as playwright, Engine() as engine:
        browser = playwright.chromium.launch(executable_path=platforms.find_chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})

        def look(path: str) -> str:
            for _ in range(60):
                try:
                    page.goto(f"{url}/{path}")
                    break
                except Exception:
                    time.sleep(0.5)
            page.wait_for_timeout(800)
            page.wait_for_selector(READY, timeout=60_000)
            page.wait_for_timeout(300)
            errors.extend(f"{path}: {alert.inner_text()[:300]}" for alert in page.get_by_test_id("stAlertContentError").all())
            errors.extend(f"{path}: exception" for _ in page.get_by_test_id("stException").all())
            return page.get_by_test_id("stMainBlockContainer").inner_text()

        for entry in PAGES:
            if not look(entry.url_path).strip():
                errors.append(f"{entry.url_path}: nothing on it")
        launched = subprocess.run([str(python), "-c", LAUNCH, str(steps)], cwd=ROOT, capture_output=True, text=True, check=False)
        if launched.returncode:
            return {"state": "not launched", "errors": [*errors, launched.stderr[-500:]], "chat": ""}
        job_id, deadline = launched.stdout.split()[-1], time.monotonic() + 240
        look(f"training?job={job_id}")
        while engine.moving(engine.job(job_id)) and time.monotonic() < deadline:
            time.sleep(0.2)
        job = engine.job(job_id)
        for entry in PAGES:
            look(entry.url_path)
        look(f"training?job={job_id}")
        said = ""
        if job.state == "done":
            model = engine.models(job_id)[0]
            look(f"models?model={model.id}")
            look(f"playground?model={model.id}")
            page.get_by_test_id("stChatInputTextArea").fill("Pig Latin: hello")
            page.keyboard.press("Enter")
            page.wait_for_url(re.compile("chat="), timeout=30_000)
            page.wait_for_timeout(1500)
            page.wait_for_selector(READY, timeout=60_000)
            turns = [turn for chat in engine.playground.conversations() for turn in engine.playground.turns(chat.id)]
            said = turns[0].answers[0]["text"] if turns else ""
        browser.close()
        return {"state": job.state, "steps": job.step, "chat": said, "errors": errors + ([str(job.error)] if job.error else [])}


if __name__ == "__main__":
    sys.exit(main())
