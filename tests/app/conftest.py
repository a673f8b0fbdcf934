"""Runs in every state, made through the store as a runner would make them; nothing trains here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from engine import Engine
from engine.data.examples import Example
from engine.evaluation import winrate
from engine.evaluation.proof import compare, measure
from engine.store import Job

ROOT = Path(__file__).resolve().parents[2]
TRAINING = str(ROOT / "pages" / "training.py")
ANALYTICS = str(ROOT / "pages" / "analytics.py")
ERROR = {
    "kind": "DataError",
    "message": "no training example has an answer within 8 tokens",
    "next_step": "Raise max_length, or shorten the examples.",
    "where": "my_data.jsonl",
}


@pytest.fixture(scope="session", autouse=True)
def known_components() -> Iterator[None]:
    """Streamlit looks for components in every package that is installed, anew for each test: most of the time that a page would take."""
    found = manifest_scanner.scan_component_manifests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", lambda: found)
        yield


@pytest.fixture(autouse=True)
def alone(nothing_starts: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No runner, no cloud, and a fresh Engine for each test's data directory."""
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def runs(engine: Engine) -> Runs:
    return Runs(engine)


def open_page(page: str = TRAINING, **query: str) -> AppTest:
    """The page (Training) as a link leads to it."""
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(page)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def texts(test: AppTest) -> str:
    """All that can be read on it."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "code", "error", "warning", "info", "success")
    found = [element.value for kind in kinds for element in test.get(kind)]
    found += [f"{metric.label} {metric.value} {metric.delta}" for metric in test.metric]
    return "\n".join(map(str, found)).replace("\\", "")


class Runs:
    """Makes runs."""

    def __init__(self, engine: Engine):
        self._engine, self._store = engine, engine.store

    def queued(self, name: str = "Pig Latin") -> Job:
        return self._store.create_job(self._engine.demo_recipe("piglatin", {"name": name}))

    def running(self, name: str = "Pig Latin", steps: int = 40) -> Job:
        job = self._claimed(self.queued(name))
        self._store.transition(job.id, "training", attempt=job.attempt)
        self._store.set_fields(job.id, job.attempt, stage="learning")
        self.go_on(job, 1, steps)
        return self._engine.job(job.id)

    def go_on(self, job: Job, start: int, end: int) -> None:
        """Steps start to end, as the loop reports them."""
        rows = [{"step": 0, "name": "held_out_loss", "value": 4.0}] if start == 1 else []
        for step in range(start, end + 1):
            values = {"train_loss": 4 / step, "learning_rate": 0.005, "grad_norm": 1.0, "tokens_per_second": 5000.0}
            if step % 25 == 0:
                values["held_out_loss"] = 4.2 / step
            rows += [{"step": step, "name": name, "value": value} for name, value in values.items()]
        said = [(0, "hello", "ello-hay", "ello-hay"), (1, "streams", "eams-stray", "eamsstr-ay")]
        samples = [
            {"step": end, "position": n, "prompt": f"Pig Latin: {word}", "expected": wanted, "answer": answer, "correct": answer == wanted}
            for n, word, answer, wanted in said
        ]
        progress = {"step": end, "total_steps": 100, "tokens": end * 1300, "training_seconds": end * 0.25}
        self._store.record(job.id, job.attempt, metrics=rows, samples=samples, progress=progress)

    def saved(self, job: Job, step: int, reason: str) -> None:
        for kind in ("weights", "sampler_weights"):
            path = f"tinker://made/{kind}/{job.id}-{step}"
            state = {"tokens": step * 1300, "seconds": step * 0.25}
            row = {"step": step, "kind": kind, "path": path, "reason": reason, "loop_state": state, "renderer": "chat_template"}
            self._store.record(job.id, job.attempt, checkpoints=[row])

    def paused(self, name: str = "Pig Latin") -> Job:
        job = self.running(name)
        self.saved(job, job.step, "pause")
        self._store.set_control(job.id, "pause")
        return self._store.transition(job.id, "paused", attempt=job.attempt)

    def failed(self, name: str = "Pig Latin") -> Job:
        job = self._claimed(self.queued(name))
        return self._store.transition(job.id, "failed", attempt=job.attempt, error=ERROR)

    def done(self, name: str = "Pig Latin") -> Job:
        job = self.running(name, steps=100)
        self.saved(job, 100, "end")
        self._store.transition(job.id, "evaluating", attempt=job.attempt)
        held_out = [Example([{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": str(n)}], n) for n in range(400)]
        skills = held_out[:200]
        before = measure(lambda rows, what: ["?" if what.startswith("held") else row.answer for row in rows], held_out, skills, 4.0, 4000)
        after = measure(lambda rows, what: [row.answer if row.row >= 14 else "?" for row in rows], held_out, skills, 0.01, 4000)
        right = [float(row.row >= 14) for row in held_out]
        won = {"judge": ["exact"], "against": "start", **winrate.compare(right, [0.0] * len(right)).to_dict()}
        proof = compare(before, after, held_out, won)
        path = f"tinker://made/sampler_weights/{job.id}-100"
        result = {"seconds": 25.0, "tokens": 130000, "steps": 100, "checkpoint": path, "notes": [], **proof}
        self._store.set_fields(job.id, job.attempt, result=result)
        known = {"base_model": "nano", "endpoint": "local", "renderer": "chat_template"}
        self._store.add_model(job.name, job_id=job.id, sampler_path=path, weights_path="", proof=proof, **known)
        return self._store.transition(job.id, "done", attempt=job.attempt)

    def _claimed(self, job: Job) -> Job:
        claimed = self._store.claim_job("test", lease_s=3600, job_id=job.id)
        assert claimed is not None
        return claimed
