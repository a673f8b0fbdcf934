"""The official SDK as our processes load it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.running import ROOT

PROGRAM = """
import sys
from importlib.machinery import ModuleSpec
if sys.argv[1]:
    sys.modules["__main__"].__spec__ = ModuleSpec(sys.argv[1], None)
from engine.endpoints.client import load_sdk
tinker = load_sdk()
print("torch" in sys.modules)
datum = tinker.types.Datum(
    model_input=tinker.types.ModelInput.from_ints([1, 2]), loss_fn_inputs={"target_tokens": [2, 3], "weights": [0.0, 1.0]}
)
print(datum.loss_fn_inputs["weights"].to_numpy().tolist())
import torch
print(torch.ones(2).sum().item())
"""


@pytest.mark.parametrize(("started_as", "with_torch"), [("engine.jobs.host", False), ("engine.cli.__main__", False), ("", True)])
def test_it_takes_torch_along_only_where_others_may_use_it(started_as: str, with_torch: bool):
    command = [sys.executable, "-c", PROGRAM, started_as]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert done.stdout.split("\n")[:3] == [str(with_torch), "[0.0, 1.0]", "2.0"], done.stderr
