"""Settings are checked where they enter: one sentence saying what came and what is right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from hunyuan_video.config import (
    CACHE_THRESHOLDS,
    MAX_PROMPT_CHARACTERS,
    SPEEDS,
    FullSampling,
    Limits,
    Output,
    Runtime,
    Sampling,
    check_guidance,
    check_prompt,
)
from hunyuan_video.request import Request


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"height": 100}, "height is 100; it must be a positive multiple of 16, such as 96"),
        ({"width": 0}, "width is 0; it must be a positive multiple of 16, such as 16"),
        ({"height": -16}, "height is -16"),
        ({"num_frames": 128}, "num_frames is 128; it must be 4n .* 1, such as 129"),
        ({"num_frames": 0}, "num_frames is 0; .*such as 1"),
        ({"num_steps": 0}, "num_steps is 0; it must be 1 or more"),
        ({"num_steps": 1001}, "num_steps is 1001; it must be 1000 or less"),
        ({"num_frames": 10_005}, "num_frames is 10005; it must be 10001 or less"),
        ({"width": 8208}, "width is 8208; it must be 8192 or less"),
        ({"shift": 0.0}, "shift is 0.0; it must be above 0"),
        ({"shift": float("nan")}, "shift is nan"),
        ({"shift": 1e14}, r"shift is 100000000000000.0; it must be above 0, from 0.001 to 1000"),
        ({"shift": 1e-30}, "shift is 1e-30; it must be above 0, from 0.001"),
        ({"guidance": 1e39}, r"guidance is 1e\+39; it must be 0 to 1000"),
        ({"cfg_scale": 1e30}, r"cfg_scale is 1e\+30; it must be 1 \(off\) or more, up to 1000"),
        ({"cfg_scale": 0.5}, "cfg_scale is 0.5; it must be 1"),
        ({"cfg_scale": float("inf")}, "cfg_scale is inf"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"schedule": "linear-quadratic", "linear_steps": 50}, "linear_steps is 50; it must be below num_steps, 50"),
        ({"schedule": "linear-quadratic", "linear_steps": 1}, "at least a fortieth"),
        ({"schedule": "linear-quadratic", "num_steps": 1}, "num_steps of 2 or more"),
    ],
)
def test_impossible_sampling_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        FullSampling(**setting)
    if not {"linear_steps", "schedule"} & setting.keys():  # which depend on the number of steps, that may be open
        with pytest.raises(ValueError, match=sentence):
            Sampling(**setting)


def test_what_is_left_open_is_as_the_weights_were_made_for():
    own = FullSampling(height=64, width=96, num_frames=33, num_steps=20, shift=2.7, guidance=2.0, noise="official")
    assert Sampling(seed=7).over(own) == replace(own, seed=7)
    assert Sampling(num_steps=30, cfg_scale=2.0, seed=7).over(own) == replace(own, num_steps=30, cfg_scale=2.0, seed=7)
    assert own.over(FullSampling()) == own


def test_weights_without_guidance_have_none_unless_it_is_given():
    without = FullSampling(guidance=None)
    assert Sampling().over(without).guidance is None and Sampling(guidance=2.0).over(without).guidance == 2.0


def test_an_open_seed_is_another_one_each_time():
    seeds = {Sampling().over(FullSampling()).seed for _ in range(3)}
    assert len(seeds) > 1 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"num_steps": 10}, "linear_steps is 25; it must be below num_steps, 10"),
        ({"num_steps": 20, "linear_steps": None}, "linear_steps is 25"),
        ({"linear_steps": 50}, "linear_steps is 50; it must be below num_steps, 50"),
    ],
)
def test_settings_that_depend_on_each_other_are_checked_when_nothing_is_open(setting, sentence):
    own = FullSampling(schedule="linear-quadratic", linear_steps=25)
    with pytest.raises(ValueError, match=sentence):
        Sampling(**setting).over(own)


@pytest.mark.parametrize(
    ("limits", "setting", "sentence"),
    [
        ({"max_side": 96}, {"width": 112}, "width is 112; it must be 96 or less"),
        ({"max_frames": 33}, {"num_frames": 37}, "num_frames is 37; it must be 33 or less"),
        ({"max_steps": 20}, {"num_steps": 21}, "num_steps is 21; it must be 20 or less"),
        (
            {"max_pixels": 33 * 64 * 96},
            {"num_frames": 37, "height": 64, "width": 96},
            "num_frames of 37 and 64x96 make 227328 pixels; they must be 202752 or less together",
        ),
    ],
)
def test_a_server_sets_its_own_limits(limits, setting, sentence):
    Limits().check(FullSampling(**setting))
    Limits(**limits).check(FullSampling(height=64, width=96, num_frames=33, num_steps=20))
    with pytest.raises(ValueError, match=sentence):
        Limits(**limits).check(Sampling(**setting))
    with pytest.raises(ValueError, match=sentence):
        Limits(**limits).check(FullSampling(**{"height": 64, "width": 96, "num_frames": 33, "num_steps": 20} | setting))


@pytest.mark.parametrize(("request_", "sentence"), [
    (Request("A cat. " * 20), "The prompt has 140 characters; the limit is 100"),
    (Request("A cat.", negative_prompt="dark " * 40), "The negative prompt has 200 characters; the limit is 100"),
    (Request("A cat.", Sampling(num_steps=30)), "num_steps is 30; it must be 20 or less"),
])  # fmt: skip
def test_a_request_is_held_against_a_servers_limits(request_, sentence):
    with pytest.raises(ValueError, match=sentence):
        request_.check(Limits(max_prompt_characters=100, max_steps=20))


def test_what_is_complete_is_not_filled_in():
    recorded = FullSampling(schedule="linear-quadratic", linear_steps=None, guidance=None)
    assert recorded.over(FullSampling(linear_steps=5, noise="official")) == recorded


def test_linear_steps_that_do_nothing_are_no_fault():
    weights = FullSampling(schedule="linear-quadratic", linear_steps=25)
    assert Sampling(schedule="shift", num_steps=10).over(weights).linear_steps == 25


def test_a_suffix_with_half_a_character_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="name_suffix is"):
        Output(name_suffix="a\ud800")


def test_what_is_left_open_is_within_every_limit():
    Limits(max_side=16, max_frames=1, max_pixels=256, max_steps=1).check(Sampling())


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"crf": 60}, "between 0 and 51"),
        ({"format": "webm", "crf": 64}, "between 0 and 63"),
        ({"format": "gif", "crf": 1}, "gif has no such"),
    ],
)
def test_impossible_output_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Output(**setting)


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        (Sampling, {"schedule": "cosine"}, "schedule is 'cosine'; it must be shift, linear-quadratic"),
        (Sampling, {"noise": "gpu"}, "noise is 'gpu'"),
        (Sampling, {"height": 64.0}, "height is 64.0; it must be int or None"),
        (FullSampling, {"height": None}, "height is None; it must be int"),
        (FullSampling, {"schedule": None}, "schedule is None; it must be shift, linear-quadratic"),
        (Limits, {"max_frames": None}, "max_frames is None; it must be int"),
        (Sampling, {"num_steps": True}, "num_steps is True; it must be int"),
        (Sampling, {"seed": "1"}, "seed is '1'; it must be int or None"),
        (Sampling, {"guidance": "high"}, "guidance is 'high'; it must be float or None"),
        (Runtime, {"dtype": "fp32"}, "dtype is 'fp32'; it must be auto, float32"),
        (Runtime, {"fp8": 1}, "fp8 is 1; it must be bool"),
        (Output, {"format": "avi"}, "format is 'avi'"),
    ],
)
def test_values_of_another_type_or_choice_are_refused(kind, setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**setting)


def test_to_multiply_in_8_bits_weights_must_be_in_8_bits():
    assert Runtime(fp8_matmul=True) == Runtime(fp8=True, fp8_matmul=True) != Runtime(fp8=True)


def test_stages_get_patches_to_be_busy_with():
    assert Runtime(pipefusion_stages=3).pipefusion_patches == 12
    assert Runtime(pipefusion_stages=3, pipefusion_patches=2).pipefusion_patches == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"pipefusion_stages": 0}, "pipefusion_stages is 0; it must be 1 or more"),
        ({"pipefusion_patches": 0}, "pipefusion_patches is 0; it must be 1"),
        ({"warmup_steps": 0}, "before the first step there are no old keys"),
        ({"pipefusion_patches": 2, "offload": "blocks"}, "patches need every block again and again"),
        ({"pipefusion_stages": 2, "offload": "auto"}, "patches need every block again and again"),
    ],
)
def test_patches_that_cannot_be_are_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Runtime(**setting)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"step_cache": "drift", "cache_threshold": -0.1}, "cache_threshold is -0.1; it must be 0"),
        ({"step_cache": "drift", "cache_threshold": float("nan")}, "cache_threshold is nan; it must be 0"),
        ({"cache_threshold": 0.1}, "step_cache is off and leaves out no step"),
        ({"step_cache": "taylor", "pipefusion_patches": 2}, "pipefusion_patches need the last step's keys"),
    ],
)
def test_step_caches_that_cannot_be_are_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Runtime(**setting)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"attention_density": 0.0}, "attention_density is 0.0; it must be above 0 and at most 1"),
        ({"progressive": "time", "progressive_until": 1.0}, "progressive_until is 1.0; it must be a noise level between 0 and 1"),
        ({"progressive_until": 0.5}, "progressive_until is 0.5, but progressive is off"),
        ({"progressive": "time", "pipefusion_patches": 2}, "patches need the last step's keys, which are of another size"),
    ],
)
def test_what_cannot_leave_anything_out_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Runtime(**setting)


@pytest.mark.parametrize("kind", ["drift", "taylor", "first-block"])
def test_a_step_cache_without_a_threshold_has_that_of_its_kind(kind):
    assert Runtime(step_cache=kind).cache_threshold == CACHE_THRESHOLDS[kind]


def test_a_whole_number_is_a_float():
    assert Sampling(shift=7, guidance=6).shift == 7


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="it must be auto, cpu, cuda"):
        Runtime(device=device)


@pytest.mark.parametrize(
    ("guidance", "embedded", "sentence"),
    [
        (None, True, "guidance is left out, but a.pt need an embedded guidance scale"),
        (6.0, False, "guidance is 6.0, but a.pt have no embedded guidance; leave it out"),
    ],
)
def test_guidance_and_weights_must_agree(guidance, embedded, sentence):
    check_guidance(guidance, not embedded, "a.pt")
    with pytest.raises(ValueError, match=sentence):
        check_guidance(guidance, embedded, "a.pt")


@pytest.mark.parametrize("prompt", ["", "  \n\t"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="The prompt is empty"):
        check_prompt(prompt)


def test_a_huge_prompt_is_refused_and_the_longest_is_not():
    check_prompt("x" * MAX_PROMPT_CHARACTERS)
    with pytest.raises(ValueError, match="the limit is 10000"):
        check_prompt("x" * (MAX_PROMPT_CHARACTERS + 1))
    with pytest.raises(ValueError, match="has 11 characters; the limit is 10,"):
        check_prompt("x" * 11, limits=Limits(max_prompt_characters=10))


@pytest.mark.parametrize(
    "module",
    [
        "hunyuan_video",
        "hunyuan_video.config",
        "hunyuan_video.weights",
        "hunyuan_video.files",
        "hunyuan_video.pictures",
        "hunyuan_video.request",
        "hunyuan_video.cli",
        "hunyuan_video.apps.official",
    ],
)
def test_what_checks_requests_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_prompt_without_meaning_to_any_program_is_refused():
    with pytest.raises(ValueError, match="number 0"):
        check_prompt("a\0cat")


def test_a_speed_fills_in_what_is_open_and_an_explicit_setting_wins():
    assert [Runtime(speed=speed).step_cache for speed in SPEEDS] == ["off", "taylor", "taylor", "taylor"]
    assert Runtime(speed="fast", step_cache="drift").step_cache == "drift"
    assert Runtime(speed="fast", progressive="off").step_cache == "taylor"


def test_a_group_of_settings_is_filled_in_only_where_its_first_one_is_open():
    def cache(**given: Any) -> tuple[str | None, float | None]:
        runtime = Runtime(speed="draft", **given)
        return runtime.step_cache, runtime.cache_threshold

    assert cache() == ("taylor", 0.2)
    assert cache(cache_threshold=0.01) == ("taylor", 0.01)
    assert cache(step_cache="drift") == ("drift", CACHE_THRESHOLDS["drift"])


def test_what_a_speed_filled_in_is_recorded_and_stays_when_presets_change(monkeypatch):
    recorded = asdict(Runtime(speed="fast"))
    monkeypatch.setitem(SPEEDS, "fast", SPEEDS["draft"])
    assert Runtime(**recorded).cache_threshold == 0.1


def test_another_speed_has_its_own_settings():
    assert Runtime(speed="fast", dtype="float32").at_speed("draft") == Runtime(speed="draft", dtype="float32")


def test_the_exact_runtime_changes_no_video():
    inexact = Runtime(speed="fast", fp8_matmul=True, text_fp8=True, wire="fp8", device="cpu", dtype="float32", attention_density=0.3)
    assert inexact.exact() == Runtime(device="cpu", dtype="float32")


def test_a_speed_with_patches_is_refused():
    with pytest.raises(ValueError, match="speed is 'balanced', which leaves out steps, but pipefusion_patches need every step's keys"):
        Runtime(speed="balanced", pipefusion_patches=4)


@pytest.mark.parametrize(
    ("given", "progressive"),
    [
        ({"speed": "fast"}, "off"),
        ({"speed": "draft"}, "off"),
        ({"speed": "balanced"}, "off"),
        ({"progressive": "time"}, "time"),  # which is refused later
        ({"speed": "draft", "progressive": "space"}, "space"),
    ],
)
def test_a_preset_means_what_a_picture_allows(given, progressive):
    runtime = Runtime(**given).for_whole()
    assert runtime.progressive == progressive
    assert (runtime.progressive_until is None) == (progressive == "off")


def test_a_speed_is_checked():
    with pytest.raises(ValueError, match="speed is 'faster'; it must be exact, balanced, fast, draft"):
        Runtime(speed="faster")  # pyright: ignore[reportArgumentType]


def test_every_preset_sets_the_same_settings_which_are_open_by_themselves():
    (groups,) = {tuple(tuple(group) for group in groups) for groups in SPEEDS.values()}
    assert {each.name for each in fields(Runtime) if each.default is None} >= {name for group in groups for name in group}
