"""The parity tests as on other machines: other last bits, other instructions, another number of threads.

The whole suite can be run so, too: CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nudge import nudged

OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
OTHER_CPU = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_WAIT_POLICY": "PASSIVE"}


# Files that may have such a test, so that no others need be read.
TESTS = Path(__file__).parent
COMPARING = [path for path in sorted(TESTS.rglob("test_*.py")) if re.search("golden|diffusers", path.read_text(encoding="utf-8"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nudge", "instructions", "threads"),
    [
        pytest.param("up", OLD_CPU, 1, id="old"),
        pytest.param("down", OTHER_CPU, 2, id="other"),  # a second make
    ],
)
def test_parity_holds_on_another_machine(nudge, instructions, threads):
    options = ["--quiet", "-p", "no:cacheprovider", "-m", "parity", "--nudge", nudge, "--tb=line", "--jaxtyping-packages="]
    command = [sys.executable, "-m", "pytest", *options, *map(str, COMPARING)]
    result = subprocess.run(
        command,
        env=os.environ | instructions | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("towards", [float("inf"), float("-inf")])
def test_a_nudge_moves_what_is_inexact_by_one_unit_in_the_last_place(towards):
    x = torch.tensor([0.0, 1.0, -2.5])
    exact, one = x.double().exp().float(), torch.tensor(towards)
    with nudged(towards):
        assert torch.equal(x.exp(), torch.cat([exact[:1], exact[1:].nextafter(one)]))
        assert np.exp(1.0) == np.nextafter(np.e, towards)
        assert torch.equal(x * x, x.pow(2))


def test_gradients_are_those_of_the_nudged_values():
    x = torch.tensor([1.0], requires_grad=True)
    with nudged(float("inf")):
        y = x.exp()
        y.backward()
    assert torch.equal(x.grad, y.detach()) and y.item() > torch.tensor(1.0).exp().item()
