"""What fills the data directory, a little at a time; and diagnostics that give nothing away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, health, paths
from engine.jobs import logs
from engine.upkeep import shown


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def fill(*names: str, size: int = 1000) -> None:
    for name in names:
        file = paths.home() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)


def test_sizes_by_kind(engine: Engine, tmp_path: Path) -> None:
    before = engine.upkeep.tally().go_on(10)
    fill("checkpoints/a/b/adapter", "datasets/x/original", "models/m/w", "jobs/1/log.jsonl", "logs/t.jsonl", "odd/one")
    (tmp_path / "big").write_bytes(b"x" * 10**6)
    os.symlink(tmp_path / "big", paths.home() / "checkpoints" / "link")
    after = engine.upkeep.tally().go_on(10)
    grown = {kind: after.sizes[kind] - before.sizes[kind] for kind in after.sizes}
    assert grown == {"database": 0, "checkpoints": 1000, "backups": 0, "datasets": 1000, "models": 1000, "logs": 2000, "other": 1000}
    assert after.sizes["database"] > 0 and after.done and after.files == before.files + 6


def test_a_big_folder_is_gone_through_a_little_at_a_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(*(f"datasets/{n}/rows" for n in range(50)))
    now = iter(range(10_000))
    monkeypatch.setattr("engine.upkeep.time.monotonic", lambda: float(next(now)))
    tally, rounds = engine.upkeep.tally(), 0
    while not tally.done:
        tally.go_on(10)
        rounds += 1
    assert rounds > 4 and tally.sizes["datasets"] == 50_000


def test_a_folder_that_vanishes_counts_as_empty(engine: Engine) -> None:
    tally = engine.upkeep.tally()
    tally._ahead.append((paths.home() / "gone", "datasets"))
    assert tally.go_on(10).done


def test_what_is_kept_is_counted_per_person(engine: Engine) -> None:
    engine.store.create_job(engine.demo_recipe("piglatin"))
    engine.store.begin_conversation("hi", {})
    assert engine.upkeep.kept() == {"runs": 1, "models": 0, "data sets": 0, "conversations": 1, "presets": 0}
    with Engine("other") as other:
        assert not any(other.upkeep.kept().values())


def test_diagnostics_tell_much_and_give_nothing_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_gpu", lambda: ("GPU", None, "none; the CPU trains", ""))
    monkeypatch.setenv("TINKER_API_KEY", "tml-abcdefgh12345678")
    monkeypatch.setenv("MY_TOKEN", "correct horse battery")
    monkeypatch.setenv("HOME", str(paths.home().parent))
    logs.log("error", f"no room in {paths.home()}; correct horse battery; tml-abcdefgh12345678")
    engine.store.create_job(engine.demo_recipe("piglatin"))
    text = engine.upkeep.diagnostics()
    for wanted in ("Thinker ", "machine: ", "streamlit ", "database at sqlite", "runs: 1 queued", "none; the CPU trains", "no room in ~"):
        assert wanted in text
    for secret in ("correct horse", "abcdefgh12345678", str(paths.home())):
        assert secret not in text
    assert shown("sk-abcdefghijkl").startswith("sk-***")
    assert engine.upkeep.folder().startswith("~") and engine.upkeep.free() > 0
