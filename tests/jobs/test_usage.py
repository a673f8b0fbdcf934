"""What a run takes of its machine: plausible figures, seldom, and none of GPUs where there are none."""

from __future__ import annotations

import subprocess

import pytest

from engine.jobs import usage


def test_figures_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage.shutil, "which", lambda name: None)
    asked = usage.Usage()
    assert asked.due() is None
    monkeypatch.setattr(usage, "EVERY_S", 0.0)
    first, second = asked.due(), asked.due()
    assert first is not None and second is not None
    assert 0.01 < first["memory_gb"] < 10_000 and set(second) <= {"memory_gb", "cpu_percent"}
    sum(number * number for number in range(300_000))
    third = asked.due()
    assert third is not None and 0 <= third["cpu_percent"] <= 100


def test_gpus_as_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 0, stdout="80, 1024\n40, 3072\n")
    monkeypatch.setattr(usage.subprocess, "run", lambda *args, **options: said)
    monkeypatch.setattr(usage.shutil, "which", lambda name: name)
    monkeypatch.setattr(usage, "EVERY_S", 0.0)
    found = usage.Usage().due()
    assert found is not None
    assert found["gpu_percent"] == 60 and found["gpu_memory_gb"] == pytest.approx(4.294967296)
    said.stdout = "[N/A], 12\n"
    assert "gpu_percent" not in (usage.Usage().due() or {})
