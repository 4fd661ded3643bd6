"""Models whose weights stay in their files: the pipeline on a CPU with every part called large, and the released sizes."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import sparse_files
import torch
from adapters import random_lora
from torch import nn

from hunyuan_video import assembly, checkpoint, memory, pipeline, plan, weights
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.text import PREFIX_TOKENS
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.plan import Parts
from hunyuan_video.request import Adapter
from hunyuan_video.transforms.fp8 import Fp8Linear
from hunyuan_video.transforms.lora import LoraLinear
from hunyuan_video.transforms.read_ahead import mapped_spans, read_ahead, size_of
from hunyuan_video.weights import locate

GB = 10**9
SMALL = FullSampling(height=32, width=48, num_frames=5, num_steps=3, seed=7, guidance=4.0)
IN_FLOAT32 = Runtime(device="cpu", dtype="float32", vae_dtype="float32", text_dtype="float32", attention="sdpa")
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@pytest.fixture
def all_are_large(monkeypatch) -> None:
    monkeypatch.setattr(weights, "LARGE", 0)


@on_linux
@pytest.mark.parametrize("free", [10 * GB, 20_000])
def test_weights_in_their_files_make_the_same_video(official_tree, monkeypatch, free):
    expected = HunyuanVideo.load(official_tree, IN_FLOAT32)("A cat.", SMALL).frames
    monkeypatch.setattr(weights, "LARGE", 0)
    monkeypatch.setattr(pipeline, "available_memory", lambda device: free)
    monkeypatch.setattr(plan.OnCpu, "sentence", lambda self, free: "")  # would refuse so little memory
    monkeypatch.setattr(plan.OnCpu, "room", lambda self, free: free)
    pipe = HunyuanVideo.load(official_tree, IN_FLOAT32)
    assert size_of(mapped_spans(pipe.transformer)) > 0.9 * sum(p.nbytes for p in pipe.transformer.parameters())
    assert (pipe("A cat.", SMALL).frames == expected).all()


def test_what_is_large_is_computed_in_bfloat16(official_tree, all_are_large, monkeypatch):
    monkeypatch.setattr(assembly, "multiplies_bfloat16", lambda: True)
    pipe = HunyuanVideo.load(official_tree, Runtime(device="cpu"))
    assert pipe("A cat.", SMALL).latents.isfinite().all()
    assert pipe.transformer.img_in.proj.weight.dtype == torch.bfloat16  # stored in float32


@pytest.mark.parametrize("in_8_bits", [False, True])
def test_an_adapter_stays_beside_weights_in_their_file(official_tree, all_are_large, monkeypatch, tmp_path, in_8_bits):
    path = tmp_path / "style.safetensors"
    save_lora(random_lora(HunyuanVideo.load(official_tree).transformer), path, "kohya", torch.float32)
    runtime = replace(IN_FLOAT32, fp8=in_8_bits)
    pipe = HunyuanVideo.load(official_tree, runtime, adapters=[Adapter(path)])
    assert any(isinstance(module, LoraLinear) for module in pipe.transformer.modules())
    latents = pipe("A cat.", SMALL).latents
    monkeypatch.setattr(weights, "LARGE", 2**31)
    merged = HunyuanVideo.load(official_tree, runtime, adapters=[Adapter(path)])("A cat.", SMALL).latents
    torch.testing.assert_close(latents, merged, atol=0.3 if in_8_bits else 1e-4, rtol=0)  # in 8 bits merging rounds, too


def test_what_does_not_fit_is_refused_before_anything_is_loaded(official_tree, all_are_large, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_text_encoder", lambda *_: pytest.fail("read weights"))
    monkeypatch.setattr(pipeline, "available_memory", lambda device: 10_000)
    with pytest.raises(ValueError, match=r"On a CPU this video needs .* GB of memory to \w+, and 0\.0 GB are free"):
        HunyuanVideo.load(official_tree, IN_FLOAT32, SMALL)


def test_what_to_expect_is_logged(official_tree, all_are_large, caplog):
    with caplog.at_level(logging.INFO, "hunyuan_video"):
        HunyuanVideo.load(official_tree, IN_FLOAT32, SMALL)
    assert re.search(r"On this CPU the video takes \d+\.\d of \d+\.\d GB of memory", caplog.text)


@pytest.mark.parametrize(("in_8_bits", "dtype"), [(False, "float32"), (True, "float32"), (False, "bfloat16")])
def test_each_stage_takes_what_was_planned_on_a_cpu(official_tree, all_are_large, monkeypatch, in_8_bits, dtype):
    found, video = locate(official_tree), replace(SMALL, height=64, width=96, num_frames=33)
    runtime = replace(IN_FLOAT32, fp8=in_8_bits, text_fp8=in_8_bits, dtype=dtype, text_dtype=dtype)  # stored in float32
    pipe = HunyuanVideo.load(found, runtime)
    monkeypatch.setitem(PREFIX_TOKENS, "video", pipe.text_encoder.crop("video"))  # its tokenizer knows bytes only
    predicted = plan.on_cpu(Parts.of(found), video, runtime)
    models = nn.ModuleList([pipe.text_encoder, pipe.transformer, pipe.vae])
    made = sum(module.weight.nbytes for module in models.modules() if isinstance(module, Fp8Linear))
    assert predicted.loaded == made + sum(tensor.nbytes for tensor in pipe.vae.parameters())
    assert predicted.loaded + predicted.in_files == pytest.approx(sum(tensor.nbytes for tensor in models.parameters()), rel=0.02)
    stages = {}
    with LiveBytes(models) as seen:
        for step in pipe.steps("A cat. " * 60, video):
            if step.step == step.total:
                stages[step.stage] = seen.most + predicted.loaded
                seen.most = seen.live
    assert predicted.stages == pytest.approx(stages, rel=0.1)


@pytest.mark.parametrize("multiplies", [True, False])
def test_the_released_model_stays_in_its_files(monkeypatch, multiplies):
    monkeypatch.setattr(assembly, "multiplies_bfloat16", lambda: multiplies)
    needs = plan.on_cpu(Parts(), None, Runtime())
    assert needs.in_files == pytest.approx(40 * GB, rel=0.01) and needs.loaded < 1.1 * GB  # what is loaded is the VAE
    assert "2.1 GB of the transformer's are read from the disk at every step" in needs.sentence(round(22.5 * GB))
    assert "the transformer's fit, too" in needs.sentence(64 * GB)


def test_files_that_must_be_expanded_are_planned_in_memory(monkeypatch):
    monkeypatch.setattr(assembly, "multiplies_bfloat16", lambda: True)
    packed = replace(Parts(), in_files=(True, False, False))
    needs = plan.on_cpu(packed, None, Runtime())
    assert needs.loaded == pytest.approx(25.6 * GB + 0.5 * GB, rel=0.05)  # with the VAE, in float32
    with pytest.raises(ValueError, match="with these weights and settings nothing fits"):
        needs.sentence(24 * GB)


def test_free_memory_counts_what_the_system_keeps_of_files(monkeypatch, tmp_path):
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("10000000000\n")
    (group / "memory.current").write_text("9000000000\n")
    (group / "memory.stat").write_text("anon 1000000000\ninactive_file 6000000000\nactive_file 2000000000\n")
    monkeypatch.setattr(memory, "GROUP", group)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 20000000 kB\n")
    assert memory.machine_memory() == 9 * GB


@pytest.mark.slow
@on_linux
def test_a_step_of_the_released_size_takes_a_gigabyte(tmp_path):
    """All names and sizes of the 13B in one file with a hole for its numbers; prints what the step took."""

    def own() -> int:
        return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

    path = sparse_files.save_pt(sparse_files.released(), tmp_path / "mp_rank_00_model_states.pt")
    before = own()
    model = checkpoint.load_transformer(path, torch.bfloat16, torch.device("cpu"), as_stored=True)
    blocks = [*model.double_blocks, *model.single_blocks]
    read_ahead(blocks, round(plan.KEPT * memory.available_memory(torch.device("cpu"))))
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, own() - before)

    for block in blocks:
        block.register_forward_hook(look)
    with torch.no_grad():
        states, mask, pooled = torch.ones(1, 60, 4096), torch.ones(1, 60, dtype=torch.bool), torch.ones(1, 768)
        condition = model.condition(states.bfloat16(), mask, pooled.bfloat16(), torch.full((1,), 6016.0).bfloat16())
        velocity = model(torch.randn(1, 16, 3, 8, 8), torch.full((1,), 500.0), condition)
    print(f"RssAnon {most / GB:.2f} GB over {before / GB:.2f}")
    assert velocity.shape == (1, 16, 3, 8, 8) and most < GB
