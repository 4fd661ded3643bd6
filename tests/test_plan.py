"""What a plan says beside what the real pipeline takes. The device is the CPU under another name: models are really copied there."""

from __future__ import annotations

import json
import shutil
from collections import deque
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from adapters import random_lora
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hunyuan_video import plan
from hunyuan_video.cli import main
from hunyuan_video.config import SPEEDS, FullSampling, Runtime, parse_bytes
from hunyuan_video.distributed import cost
from hunyuan_video.kernels import triton
from hunyuan_video.kernels.choice import attention_of
from hunyuan_video.kernels.triton.by_name import BY_NAME
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import MAX_TEXT_TOKENS, PREFIX_TOKENS
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.plan import Parts, Prediction, choice
from hunyuan_video.plan.parts import CUDA, build, bytes_of, steps_of
from hunyuan_video.plan.prediction import spread as spread_bytes
from hunyuan_video.transforms.ahead import early_tensors
from hunyuan_video.transforms.lora import in_attention_and_mlp
from hunyuan_video.weights import locate

GB = 10**9
VIDEO = FullSampling(height=64, width=96, num_frames=33, num_steps=2, seed=0)
IN_FLOAT32 = Runtime(device="cpu", dtype="float32", vae_dtype="float32", text_dtype="float32", attention="sdpa")
# The released model with fewer blocks, for each is counted.
SHALLOW = Parts(
    replace(TransformerConfig(), num_double_blocks=8, num_single_blocks=16),
    llm=LlamaConfig(num_hidden_layers=8),
)


def choose_kernels(pipe: HunyuanVideo, sampling: FullSampling) -> None:
    """Which are measured once on a machine, for which memory is taken."""
    with closing(pipe.steps("A cat.", sampling)) as steps:
        next(iter(steps))


def measured(pipe: HunyuanVideo, sampling: FullSampling) -> dict[str, int]:
    """Bytes of every tensor on the device, at the fullest moment of each stage."""
    models = [pipe.text_encoder, pipe.transformer, pipe.vae]
    resident = sum(tensor.nbytes for model in models for tensor in (*model.parameters(), *model.buffers()))
    resident -= sum(tensor.nbytes for tensor in early_tensors(pipe.transformer).values())  # which would be on the host
    choose_kernels(pipe, sampling)
    stages = {}
    with LiveBytes(nn.ModuleList(models)) as seen:
        for step in pipe.steps("A cat. " * 60, sampling):
            if step.step == step.total:
                stages[step.stage] = seen.most + (resident if pipe.runtime.offload == "none" else 0)
                seen.most = seen.live
    return stages


@pytest.mark.parametrize("offload", ["none", "models", "blocks"])
@pytest.mark.parametrize("in_8_bits", [False, True])
def test_each_stage_takes_what_was_planned(official_tree, monkeypatch, offload, in_8_bits):
    found = locate(official_tree)
    runtime = replace(IN_FLOAT32, offload=offload, fp8=in_8_bits, text_fp8=in_8_bits)
    pipe = HunyuanVideo.load(found, runtime)
    monkeypatch.setitem(PREFIX_TOKENS, "video", pipe.text_encoder.crop("video"))  # its tokenizer knows bytes only
    (predicted,) = plan.predict(Parts.of(found), VIDEO, [runtime])
    if offload != "none":
        pipe.device = torch.device("cpu:0")
    stages = measured(pipe, VIDEO)
    assert predicted.stages == pytest.approx(stages, rel=0.1)
    home = sum(tensor.nbytes for model in (pipe.text_encoder, pipe.transformer, pipe.vae) for tensor in model.state_dict().values())
    if offload != "none":
        frames = 3 * VIDEO.num_frames * VIDEO.height * VIDEO.width
        assert predicted.host - 2 * frames == pytest.approx(home, rel=0.02)


def test_keys_that_are_remembered_are_planned(official_tree):
    found, runtime = locate(official_tree), replace(IN_FLOAT32, pipefusion_patches=3, warmup_steps=2)
    video = replace(VIDEO, num_steps=3, cfg_scale=2.0)
    exact, predicted = plan.predict(Parts.of(found), video, [IN_FLOAT32, runtime])
    assert predicted.stages["denoise"] == pytest.approx(measured(HunyuanVideo.load(found, runtime), video)["denoise"], rel=0.1)
    assert predicted.stages["denoise"] > 1.2 * exact.stages["denoise"]


@pytest.mark.slow
def test_stages_share_weights_keys_and_time():
    runtime = Runtime(pipefusion_patches=16, warmup_steps=4)
    runtimes = [runtime, replace(runtime, pipefusion_stages=4)]
    few, more = (plan.predict(SHALLOW, FullSampling(height=256, width=384, num_frames=33, num_steps=steps), runtimes) for steps in (40, 60))
    assert few[0].stages["denoise"] - few[1].stages["denoise"] > 5 * GB
    alone, spread = (longer.seconds - short.seconds for short, longer in zip(few, more, strict=True))
    assert spread / alone == pytest.approx(19 / 64, rel=0.05)  # 16 patches, and 3 that wait, through a quarter of the blocks


def test_fewer_pairs_and_smaller_steps_take_less_time():
    video, exact = FullSampling(), Runtime()
    whole, sparse, growing = (
        steps_of(Parts(), video, runtime)
        for runtime in (exact, Runtime(attention_density=0.3), Runtime(progressive="space-time", progressive_until=0.5))
    )
    assert [(n, step.image) for n, step in whole] == [(50, 118_800)]
    assert sparse[0][1].work(0).attention / whole[0][1].work(0).attention == pytest.approx(1 - 39 / 50 * 59 / 60 * 0.7)
    assert [(n, step.image) for n, step in growing] == [(27, 17 * 23 * 40), (17, 17 * 45 * 80), (6, 118_800)]
    seconds = [each.seconds for each in plan.predict(SHALLOW, video, [exact, Runtime(attention_density=0.3), Runtime(progressive="time")])]
    assert max(seconds[1:]) < 0.8 * seconds[0]


def test_denoising_takes_what_was_planned_from_the_allocator_itself(official_tree, monkeypatch, pytestconfig):
    if pytestconfig.getoption("nudge"):
        pytest.skip("--nudge takes memory of its own")
    found, video = locate(official_tree), replace(VIDEO, height=128, width=192)
    pipe = HunyuanVideo.load(found, IN_FLOAT32)
    monkeypatch.setitem(PREFIX_TOKENS, "video", pipe.text_encoder.crop("video"))
    (predicted,) = plan.predict(Parts.of(found), video, [IN_FLOAT32])
    choose_kernels(pipe, video)
    steps = pipe.steps("A cat. " * 60, video)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        deque((next(steps) for _ in range(1 + video.num_steps)), maxlen=0)
    steps.close()
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    resident = sum(map(bytes_of, (pipe.text_encoder, pipe.transformer, pipe.vae)))
    assert predicted.stages["denoise"] == pytest.approx(resident + max(live), rel=0.1)


def test_whole_decoding_takes_what_was_planned(official_tree):
    found, runtime = locate(official_tree), replace(IN_FLOAT32, vae_tiling=False)
    (predicted,) = plan.predict(Parts.of(found), VIDEO, [runtime])
    assert predicted.stages["decode"] == pytest.approx(measured(HunyuanVideo.load(found, runtime), VIDEO)["decode"], rel=0.1)


def test_operations_of_a_small_transformer_are_those_of_the_formula(tiny_transformer):
    """24 D^2 for each token and 4 S^2 D in each block, and little else."""
    model = HunyuanVideoTransformer(replace(tiny_transformer.config, num_double_blocks=8, num_single_blocks=16)).to("meta")
    counted = plan.count(model, lambda: plan.denoise(model, (1, 4, 9, 32, 32))).operations
    tokens, width = 9 * 16 * 16 + MAX_TEXT_TOKENS, 32
    assert counted == pytest.approx(24 * (24 * width**2 * tokens + 4 * tokens**2 * width), rel=0.05)


def test_multiplying_in_8_bits_is_planned_faster_and_expands_no_weight():
    video = FullSampling(height=256, width=384, num_frames=33)  # of a larger one, most of the time is attention
    half, both = plan.predict(SHALLOW, video, [Runtime(fp8=True), Runtime(fp8_matmul=True)])
    assert 0.5 < both.seconds / half.seconds < 0.9
    assert both.stages["denoise"] == pytest.approx(half.stages["denoise"], rel=0.02)


@pytest.fixture
def lora_file(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"  # only its size counts
    path.write_bytes(bytes(1000))
    return path


def prediction(offload: str, gigabytes: float, seconds: float, host: int = 1, **choices) -> Prediction:
    stages = {"encode": GB, "denoise": GB, "decode": round(gigabytes * GB)}
    return Prediction(Runtime(offload=offload, **choices), stages, host * GB, seconds)


CHOICES = [
    prediction("none", 40, 1.0),
    prediction("none", 90, 0.9, vae_tiling=False),
    prediction("models", 20, 1.1, host=40),
    prediction("models", 12, 1.2, host=25, fp8=True),
    prediction("models", 11, 0.8, host=70, fp8_matmul=True),
]


@pytest.mark.parametrize(
    ("memory", "host", "flags"),
    [
        (100, 64, "--offload none"),
        (24, 64, "--offload models"),
        (24, 32, "--offload models --fp8"),
        (15, 64, "--offload models --fp8"),
        (15, 99, "--offload models --fp8-matmul"),
    ],
)
def test_the_fastest_that_fits_is_proposed(memory, host, flags):
    assert plan.proposal(CHOICES, memory * GB, host * GB).endswith(f": {flags}")


def test_the_proposal_says_all_that_it_was_planned_with():
    runtime = Runtime(offload="blocks", dtype="float16", text_fp8=True, fp8_matmul=True, vae_tiling=False)
    words = plan.flags(runtime)
    assert words[:2] == ["--dtype float16", "--no-vae-tiling"] and words[-1] == "--fp8-matmul"
    assert {"--offload blocks", "--text-fp8"} < set(words) and "--fp8" not in words


def test_the_proposal_says_a_preset_and_not_what_it_implies(monkeypatch):
    monkeypatch.setitem(SPEEDS, "fast", (*SPEEDS["exact"], {"pipefusion_patches": 8}))
    assert plan.flags(Runtime(speed="fast", dtype="float32")) == ["--speed fast", "--dtype float32", "--offload none"]


def test_the_scores_of_an_attention_that_keeps_them_are_planned(official_tree):
    parts = Parts.of(locate(official_tree))
    fused, plain = plan.predict(parts, VIDEO, [replace(IN_FLOAT32, attention=kind) for kind in ("sdpa", "matmul")])
    tokens = 9 * 4 * 6 + 256
    assert plain.stages["denoise"] - fused.stages["denoise"] > 4 * 2 * tokens**2


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_an_attention_in_8_bits_counts_itself_also_without_triton(monkeypatch, name):
    monkeypatch.setattr(triton, "is_here", lambda: False)
    _, transformer, *_ = build(SHALLOW, Runtime(attention=name), CUDA, ())
    assert attention_of(transformer) == {BY_NAME[name]}


@pytest.mark.parametrize("in_8_bits", [False, True])
def test_only_adapters_beside_weights_that_come_in_8_bits_take_memory(official_tree, tiny_transformer, in_8_bits):
    found = replace(Parts.of(locate(official_tree)), in_8_bits=in_8_bits, transformer=tiny_transformer.config)
    lora = random_lora(tiny_transformer, where=in_attention_and_mlp)
    (without,), (beside,) = (plan.predict(found, VIDEO, [IN_FLOAT32], adapters) for adapters in ((), [(lora, 0.5)]))
    factors = sum(adapter.down.nbytes + adapter.up.nbytes for adapter in lora.layers.values())
    assert beside.stages["decode"] - without.stages["decode"] == (factors if in_8_bits else 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["none", "models", "blocks"])
def test_a_gpu_takes_what_was_planned(official_tree, offload):
    found, runtime = locate(official_tree), Runtime(device="cuda", offload=offload, attention="sdpa")
    video = replace(VIDEO, height=256, width=256)
    pipe = HunyuanVideo.load(found, runtime)
    pipe("A cat.", video)  # cuBLAS and cuDNN take their work space
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    pipe("A cat. " * 60, video)
    (predicted,) = plan.predict(Parts.of(found), video, [runtime])
    assert predicted.device == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1, abs=64e6)


def spread(offload: str, gigabytes: float, seconds: float, **choices) -> Prediction:
    return replace(prediction(offload, gigabytes, seconds, **choices), gpus=4)


@pytest.mark.parametrize(("copied", "flags"), [(0.97, "--offload none --shard"), (0.9, "--offload blocks")])
def test_on_several_gpus_weights_stay_there_unless_that_is_much_slower(copied, flags):
    choices = [spread("none", 48, 1.0), spread("blocks", 8, copied), spread("none", 18, 1.0, shard=True)]
    assert plan.proposal(choices, 24 * GB, None).endswith(f": --gpus 4 {flags}")


def test_four_gpus_of_24_gb_hold_what_one_does_not():
    """The released model at its largest size, without anything on the host: weights and tokens are shared out."""
    video = FullSampling()
    (alone,) = plan.predict(Parts(), video, [Runtime()])
    four = Runtime(ulysses_degree=4, ring_degree=1, shard=True)
    (together,) = plan.predict(Parts(), video, [four], gpus=4)
    assert together.wanted < 24 * GB < alone.wanted
    assert alone.seconds / together.seconds == pytest.approx(4, rel=0.1)


def test_spread_weights_take_their_share_and_what_is_gathered(official_tree):
    parts = Parts.of(locate(official_tree))
    text, transformer, vae, _ = build(parts, IN_FLOAT32, CUDA)
    one, three = (spread_bytes(text, transformer, vae, gpus) for gpus in (1, 3))
    whole, (clip, others) = sum(map(bytes_of, (text, transformer, vae))), map(bytes_of, (text.get_submodule("clip"), vae))
    assert one[2] == whole and three[2] == pytest.approx((whole - clip - others) / 3 + clip + others, abs=3)
    blocks = sorted(map(bytes_of, transformer.blocks))
    assert three[1] - three[2] == bytes_of(transformer) - sum(blocks[:-2])


def test_two_branches_of_guidance_on_two_gpus_take_half_the_time(official_tree):
    parts, video = Parts.of(locate(official_tree)), replace(VIDEO, cfg_scale=6.0, num_steps=50)
    one, two = (plan.predict(parts, video, [IN_FLOAT32], gpus=gpus)[0].seconds for gpus in (1, 2))
    assert (one - cost.OURS.alone) / (two - cost.OURS.alone) > 1.5


def test_why_nothing_fits_is_said():
    with pytest.raises(ValueError, match=r"12\.3 GB of GPU memory to decode, and 8\.0 GB are free"):
        plan.proposal(CHOICES, 8 * GB, 64 * GB)
    with pytest.raises(ValueError, match=r"GB of host memory, and 8\.0 GB are free"):
        plan.proposal(CHOICES, 24 * GB, 8 * GB)


def test_auto_takes_what_fits_and_nothing_else_changes(monkeypatch):
    needs = {"none": 40, "models": 20, "blocks": 8}
    monkeypatch.setattr(choice, "predict", lambda _parts, _video, runtimes, _adapters, _gpus: [
        replace(prediction(runtime.offload, needs[runtime.offload], 40.0 / needs[runtime.offload]), runtime=runtime) for runtime in runtimes
    ])  # fmt: skip
    runtime, gpu = Runtime(offload="auto", fp8=True, attention="sdpa"), torch.device("cuda")
    for offload, free in (("none", 80), ("models", 24), ("blocks", 12)):
        monkeypatch.setattr(choice, "available_memory", lambda device, free=free: (free if device.type == "cuda" else 64) * GB)
        assert plan.choose(Parts(), VIDEO, runtime, gpu) == replace(runtime, offload=offload)
    monkeypatch.setattr(choice, "available_memory", lambda device: 6 * GB)
    with pytest.raises(ValueError, match=r"9\.2 GB of GPU memory to decode, and 6\.0 GB are free"):
        plan.choose(Parts(), VIDEO, runtime, gpu)


@pytest.mark.slow
def test_auto_counts_what_each_of_several_gpus_holds_and_shares_the_host(monkeypatch):
    free = {"cuda": 16 * GB, "cpu": 40 * GB}
    monkeypatch.setattr(choice, "available_memory", lambda device: free[device.type])
    runtime, gpu = Runtime(offload="auto", ulysses_degree=4, ring_degree=1, attention="sdpa"), torch.device("cuda")
    video = FullSampling(height=544, width=960)
    assert plan.choose(SHALLOW, video, replace(runtime, ulysses_degree=1), gpu).offload != "none"
    free["cuda"] = 17 * GB
    assert plan.choose(SHALLOW, video, runtime, gpu, (), 4, 4).offload == "none"
    free["cuda"] = 10 * GB
    assert plan.choose(SHALLOW, video, runtime, gpu, (), 4).offload == "blocks"
    with pytest.raises(ValueError, match="host"):
        plan.choose(SHALLOW, video, runtime, gpu, (), 4, 4)


def test_without_a_gpu_auto_moves_nothing(official_tree):
    pipe = HunyuanVideo.load(official_tree, Runtime(device="cpu", offload="auto"))
    early = {id(tensor) for tensor in early_tensors(pipe.transformer).values()}
    assert {id(tensor) for tensor in pipe.streamed} == early and pipe.runtime.offload == "none"


def test_the_released_model_needs_what_its_tensors_say():
    text, transformer, *_ = build(Parts(), Runtime(), torch.device("cuda"))
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (text.get_submodule("llm"), transformer)]
    assert count == [128320 * 4096 + 30 * 218_112_000, 12_821_012_544]


@pytest.mark.slow
def test_streaming_the_released_model_at_720p_costs_no_time_and_little_memory():
    resident, streamed = plan.predict(Parts(), FullSampling(), [Runtime(), Runtime(offload="blocks")], card=cost.H100)
    assert streamed.seconds < 1.03 * resident.seconds
    assert streamed.wanted < 6e9


def test_fewer_frames_take_less_and_tiles_bound_the_decoding():
    parts, runtimes = SHALLOW, [Runtime(offload="blocks")]
    short, long = (plan.predict(parts, FullSampling(height=320, width=512, num_frames=n), runtimes)[0] for n in (65, 129))
    assert short.stages["denoise"] < long.stages["denoise"]
    assert long.stages["decode"] < 1.05 * short.stages["decode"]


@pytest.mark.parametrize(("text", "number"), [("24GB", 24 * GB), ("22.5GiB", 45 * 2**29), ("8 GB", 8 * GB)])
def test_memory_is_read_as_people_write_it(text, number):
    assert parse_bytes(text, "--gpu-memory") == number


@pytest.mark.parametrize("text", ["24", "GB", "-1GB", "24 TB"])
def test_other_words_for_memory_are_refused(text):
    with pytest.raises(ValueError, match="such as 24GB"):
        parse_bytes(text, "--gpu-memory")


def test_the_command_prints_a_table_and_a_proposal(official_tree, capsys):
    size = ["--height", "64", "--width", "96", "--num-frames", "5"]
    assert main(["plan", *size, "--weights", str(official_tree), "--gpu-memory", "24GB"]) == 0
    what, head, *rows, units, _, last = capsys.readouterr().out.splitlines()
    assert what == f"For the weights in {official_tree}:" and units.startswith("GB (10^9 bytes) at the fullest moment")
    assert head.split()[-3:] == ["GPU", "host", "time"] and len(rows) == 12
    assert last == "The fastest that fits 24.0 GB takes 0.8: --offload none"


def test_the_command_plans_for_several_gpus(official_tree, capsys):
    size = ["--height", "64", "--width", "96", "--num-frames", "5", "--cfg-scale", "6"]
    assert main(["plan", *size, "--weights", str(official_tree), "--gpu-memory", "24GB", "--gpus", "4"]) == 0
    _, head, *rows, units, _, proposed, time, one, why, halves = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["offload", "shard"] and len(rows) == 8 and units.endswith("of the fullest")
    assert (
        proposed == "The fastest that fits 24.0 GB on each of 4 GPUs takes 1.3: --gpus 4 --offload none --ulysses-degree 2 --ring-degree 1"
    )
    assert time.startswith("By arithmetic for RTX 4090 PCIe it takes ") and one.startswith("One such GPU holds it (--offload none): ")
    assert why.startswith("Ulysses 2: ") and halves == "Each half of the GPUs (2) computes one branch of guidance."


def test_degrees_for_other_numbers_of_gpus_are_refused(official_tree, capsys):
    assert main(["plan", "--weights", str(official_tree), "--gpus", "4", "--ulysses-degree", "3"]) == 2
    assert "their product must be 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"), [([], {"num_frames": 5}), (["--num-frames", "9"], {"num_frames": 9}), (None, {"height": 720, "width": 1280})]
)
def test_a_plan_is_for_the_weights_own_video_unless_told(official_tree, tmp_path, monkeypatch, flags, expected):
    root, own = tmp_path / "ckpts", {"height": 32, "width": 48, "num_frames": 5}
    shutil.copytree(official_tree, root)
    (root / "generation_config.json").write_text(json.dumps(own))
    seen = []
    monkeypatch.setattr(plan, "predict", lambda _parts, sampling, *_: pytest.fail("enough") if seen.append(sampling) is None else None)
    monkeypatch.delenv("MODEL_BASE", raising=False)
    with pytest.raises(pytest.fail.Exception):
        main(["plan"] if flags is None else ["plan", "--weights", str(root), *flags])  # without weights, of the released ones
    wanted = FullSampling(**expected if flags is None else own | expected)
    assert replace(seen[0], seed=0) == wanted


def test_without_a_gpu_or_its_size_the_command_says_what_is_missing(official_tree, capsys):
    size = ["--height", "64", "--width", "96", "--num-frames", "5"]
    assert main(["plan", *size, "--weights", str(official_tree), "--device", "cpu"]) == 0
    assert "--gpu-memory 24GB" in capsys.readouterr().out.splitlines()[-1]
