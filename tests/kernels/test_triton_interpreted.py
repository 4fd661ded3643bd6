"""Kernels for GPUs compute the right numbers: in Triton's interpreter, in one process, for it must be chosen before Triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs Triton, which exists for Linux")
INTERPRETED = Path(__file__).parents[1] / "interpreted_kernels.py"


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", str(INTERPRETED)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_layer_norm_and_modulation_equal_pytorchs(computed):
    assert max(computed["modulate"]) < 2e-6


def test_rms_norm_and_rotation_equal_pytorchs_bit_for_bit_and_touch_nothing_else(computed):
    assert computed["norm_rope"] == [True, True]


def test_a_gated_sum_equals_pytorchs(computed):
    assert max(computed["add_gated"]) < 1e-6


def test_gelu_in_8_bits_uses_the_whole_range_of_each_token(computed):
    gelu = computed["gelu_in_8_bits"]
    assert gelu["error"] < 2**-5 and gelu["plain"] < 2**-5  # half a step of three bits is at most 2^-4 of a number, and less on average
    assert set(gelu["largest"]) == {448.0}


def test_a_token_of_zeros_stays_one(computed):
    assert computed["gelu_in_8_bits"]["zeros"] == 0


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.015), ("fp8", 0.03)])
def test_attention_in_8_bits_is_near_float32_where_channels_stick_out(computed, kind, most):
    assert computed["errors"][f"{kind} both"] < most


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_smoothing_and_rotating_each_make_errors_smaller(computed, kind):
    errors = computed["errors"]
    assert errors[f"{kind} plain"] > errors[f"{kind} smooth"] > errors[f"{kind} both"]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_largest_share_of_attention_is_not_clipped(computed, kind):
    assert all(0.97 < share < 1.03 for share in computed["one_key_has_all"][kind])


def test_lengths_and_places_in_memory_may_be_any(computed):
    assert computed["strided_and_of_other_lengths"] < 0.02


def test_without_float8_values_stay_in_16_bits(computed):
    assert computed["values_in_16_bits"] < computed["errors"]["int8 both"]


@pytest.mark.parametrize("sizes", ["64 x 64", "128 x 64", "64 x 128", "128 x 128", "in parts"])
def test_attention_to_lists_of_blocks_equals_a_mask(computed, sizes):
    assert computed["sparse"][sizes] < 1e-6


def test_lists_of_blocks_in_bfloat16_err_as_bfloat16_does(computed):
    assert computed["sparse"]["bfloat16"] < 0.004


def test_lists_of_blocks_in_8_bits_err_as_all_keys_in_8_bits_do(computed):
    assert computed["sparse_in_8_bits"] < 0.015
