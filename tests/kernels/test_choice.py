"""The attention kernel is the one that is faster here, measured once, recorded, and used again."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hunyuan_video import cli
from hunyuan_video.apps.generate import runtime_here
from hunyuan_video.assembly import check
from hunyuan_video.config import Runtime, Sampling
from hunyuan_video.distributed.world import Degrees, World
from hunyuan_video.kernels import choice, fused, kept, measured, table
from hunyuan_video.kernels.choice import fastest, use_attention
from hunyuan_video.kernels.measured import measure
from hunyuan_video.kernels.table import Kernel as Named
from hunyuan_video.models.attention import sdpa
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.video import read_metadata

CPU = torch.device("cpu")
SMALL = Sampling(height=32, width=48, num_frames=5, num_steps=2, seed=7)


class Kernel:
    """Attention that takes its time, by a clock that nothing else moves, and counts."""

    now = 0.0

    def __init__(self, seconds: float):
        self.seconds, self.calls, self.shapes = seconds, 0, set[tuple[int, ...]]()

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        Kernel.now += self.seconds
        self.calls += 1
        self.shapes.add(tuple(k.shape))
        return sdpa(q, k, v, mask)


@pytest.fixture
def nothing_measured(monkeypatch, tmp_path):
    """Nothing is remembered or kept, and the clock is the kernels'."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_fastest", {})
    monkeypatch.setattr(measured, "_said", set())
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: Kernel.now))


@pytest.fixture
def kernels(monkeypatch, nothing_measured):
    """Puts kernels of these seconds in place of all that there are, before anything was measured in this process."""

    def install(sdpa: float, chunked: float) -> dict[str, Kernel]:
        monkeypatch.setattr(measured, "_fastest", {})
        monkeypatch.setattr(table, "_loaded", {})
        fakes = {"sdpa": Kernel(sdpa), "chunked": Kernel(chunked)}
        named = {name: Named(lambda kernel=kernel: kernel) for name, kernel in fakes.items()}
        monkeypatch.setattr(table, "KERNELS", named | {"matmul": replace(table.KERNELS["matmul"])})
        return fakes

    return install


@pytest.mark.parametrize(("times", "expected"), [((0.02, 0.001), "chunked"), ((0.001, 0.02), "sdpa"), ((0.02, 0.02), "sdpa")])
def test_the_faster_kernel_is_chosen_and_a_tie_is_for_pytorchs(kernels, times, expected):
    kernels(*times)
    assert fastest(2, 16, 64, torch.float32, CPU) == expected


def test_a_length_is_measured_once_a_process_and_another_length_anew(kernels):
    fakes = kernels(0.0012, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    calls = fakes["sdpa"].calls
    assert 2 <= calls == fakes["chunked"].calls
    fastest(2, 16, 290, torch.float32, CPU)
    assert fakes["sdpa"].calls == calls
    for other in ((2, 16, 900, torch.float32), (2, 16, 300, torch.bfloat16), (2, 32, 300, torch.float32), (4, 16, 300, torch.float32)):
        before = fakes["sdpa"].calls
        fastest(*other, CPU)
        assert fakes["sdpa"].calls > before


def test_all_keys_take_part_up_to_what_no_cache_holds(kernels):
    fakes = kernels(0.0, 0.0)
    fastest(2, 16, 700, torch.float32, CPU)
    fastest(2, 16, 100_000, torch.float32, CPU)
    assert {shape[1] for shape in fakes["chunked"].shapes} == {700, 2**14}


def test_a_device_for_which_there_is_nothing_else_is_left_to_pytorch():
    assert fastest(24, 128, 100_000, torch.bfloat16, torch.device("mps")) == "sdpa"


def test_where_keys_come_in_parts_only_what_computes_them_is_measured(kernels, monkeypatch):
    kernels(0.003, 0.002)
    native, flash = Kernel(0.0), Kernel(0.0)
    for name, kernel in (("native-amx", native), ("flash", flash)):
        monkeypatch.setitem(table.KERNELS, name, Named(lambda kernel=kernel: kernel))
    assert fastest(2, 16, 64, torch.float32, CPU, "parts") == "chunked" and native.calls == flash.calls == 0
    assert fastest(2, 16, 64, torch.float32, CPU) != "chunked"


def test_measuring_leaves_the_random_numbers_alone(kernels):
    kernels(0.0, 0.0)
    before = torch.get_rng_state()
    fastest(2, 16, 64, torch.float32, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_kernels_take_turns(nothing_measured):
    order: list[str] = []
    measure({name: name for name in ("a", "b")}, lambda name: order.append(name) or torch.zeros(1), CPU)
    assert order == ["a", "b"] * (len(order) // 2)


@pytest.mark.parametrize(("times", "expected"), [((0.01, 0.0), "chunked"), ((0.0, 0.01), "sdpa")])
def test_a_video_is_made_with_the_chosen_kernel_which_is_recorded(official_tree, kernels, times, expected):
    fakes = kernels(*times)
    pipe = HunyuanVideo.load(official_tree)
    assert pipe("A cat.", SMALL).provenance.runtime.attention == expected
    assert {block.attention for block in pipe.transformer.single_blocks} == {fakes[expected]}


def test_a_kernel_that_was_asked_for_is_not_measured(official_tree, kernels):
    fakes = kernels(0.0, 0.0)
    video = HunyuanVideo.load(official_tree, Runtime(attention="matmul"))("A cat.", SMALL)
    assert video.provenance.runtime.attention == "matmul" and fakes["sdpa"].calls == fakes["chunked"].calls == 0


def test_a_kernel_that_somebody_put_there_stays_and_none_is_recorded(official_tree, kernels):
    fakes, theirs = kernels(0.0, 0.0), Kernel(0.0)  # such as the one that sequence parallelism wraps around another
    pipe = HunyuanVideo.load(official_tree)
    use_attention(pipe.transformer, theirs)
    assert pipe("A cat.", SMALL).provenance.runtime.attention == "auto"
    assert theirs.calls > 0 and fakes["sdpa"].calls == fakes["chunked"].calls == 0


def test_replay_uses_the_recorded_kernel_whatever_is_faster_now(official_tree, kernels, tmp_path, capsys):
    kernels(0.01, 0.0)
    where = ["--weights", str(official_tree), "--out", str(tmp_path)]
    size = ["--height", "32", "--width", "48", "--num-frames", "5", "--num-steps", "2", "--seed", "7"]
    assert cli.main(["generate", "A cat.", *size, *where]) == 0
    path = capsys.readouterr().out.split()[-1]
    kernels(0.0, 0.01)
    assert read_metadata(path)["runtime"]["attention"] == "chunked"
    assert cli.main(["replay", path, *where]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_kernel_for_another_kind_of_device_is_not_kept(official_tree):
    made = HunyuanVideo.load(official_tree, Runtime(attention="chunked"))("A cat.", SMALL).provenance
    assert runtime_here(made).attention == "chunked" and runtime_here(replace(made, device="NVIDIA H100"), "cpu").attention == "auto"


def test_two_pipelines_with_the_same_kernel_make_the_same_frames(official_tree, kernels):
    kernels(0.0, 0.01)
    chosen = HunyuanVideo.load(official_tree)("A cat.", SMALL)
    told = HunyuanVideo.load(official_tree, replace(Runtime(), attention=chosen.provenance.runtime.attention))("A cat.", SMALL)
    assert np.array_equal(chosen.frames, told.frames)


# Kept on disk.


def test_a_later_process_does_not_measure_again(kernels):
    fakes = kernels(0.002, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    later = kernels(0.001, 0.002)
    assert fastest(2, 16, 290, torch.float32, CPU) == "chunked"
    assert later["sdpa"].calls == later["chunked"].calls == 0 < fakes["sdpa"].calls


@pytest.mark.parametrize("change", ["the machine", "PyTorch", "a kernel", "threads"])
def test_what_could_change_the_answer_is_measured_anew(kernels, monkeypatch, change):
    kernels(0.002, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    later = kernels(0.001, 0.002)
    if change == "the machine":
        monkeypatch.setattr(kept, "machine", lambda device: "another")
    if change == "PyTorch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    if change == "a kernel":
        monkeypatch.setitem(table.KERNELS, "chunked", replace(table.KERNELS["chunked"], version=lambda: "2.0"))
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert fastest(2, 16, 300, torch.float32, CPU) == "sdpa" and later["sdpa"].calls > 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": {"chunked": "fast"}}', '{"seconds": {}, "question": {}}'])
def test_a_damaged_file_counts_as_never_measured(kernels, tmp_path, content):
    kernels(0.002, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(content)
    later = kernels(0.001, 0.002)
    assert fastest(2, 16, 300, torch.float32, CPU) == "sdpa" and later["sdpa"].calls > 0


@pytest.mark.parametrize("seconds", [{}, {"a kernel that there never was": 0.1}])
def test_an_answer_that_names_no_kernel_of_now_counts_as_never_measured(kernels, tmp_path, seconds):
    kernels(0.002, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": seconds}))
    later = kernels(0.001, 0.002)
    assert fastest(2, 16, 300, torch.float32, CPU) == "sdpa" and later["sdpa"].calls > 0


def test_a_cache_that_cannot_be_written_is_no_error(kernels, tmp_path):
    kernels(0.002, 0.001)
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert fastest(2, 16, 300, torch.float32, CPU) == "chunked"


def test_a_chosen_kernel_that_is_gone_is_chosen_anew(kernels, monkeypatch):
    kernels(0.002, 0.001)
    fastest(2, 16, 300, torch.float32, CPU)
    kernels(0.002, 0.001)

    def gone() -> None:
        raise ImportError("it was removed.")

    monkeypatch.setitem(table.KERNELS, "chunked", Named(gone))
    assert fastest(2, 16, 300, torch.float32, CPU) == "sdpa"


# Kernels that do not work.


@pytest.mark.parametrize(("broken", "said"), [
    (lambda *_: 1 / 0, "Without chunked attention, which fails here: ZeroDivisionError: division by zero"),
    (lambda q, *_: torch.ones_like(q), "Without chunked attention, which computes something else than PyTorch here."),
    (lambda q, *_: torch.full_like(q, torch.nan), "Without chunked attention, which computes something else than PyTorch here."),
])  # fmt: skip
def test_a_kernel_that_fails_is_no_candidate_and_is_told_of_once(kernels, monkeypatch, caplog, broken, said):
    kernels(0.002, 0.0)
    monkeypatch.setitem(table.KERNELS, "chunked", Named(lambda: broken))
    caplog.set_level(logging.INFO)
    assert [fastest(2, 16, tokens, torch.float32, CPU) for tokens in (300, 900)] == ["sdpa", "sdpa"]
    assert [record.message for record in caplog.records if record.message.startswith("Without")] == [said]


def test_who_is_far_behind_is_not_measured_to_the_end(nothing_measured):
    fakes = {"slow": Kernel(0.03), "fast": Kernel(0.01), "near": Kernel(0.011)}
    q = torch.zeros(1, 1, 1, 1)
    measure(fakes, lambda kernel: kernel(q, q, q, None), CPU)
    assert fakes["slow"].calls == 2 < fakes["near"].calls == fakes["fast"].calls


def test_the_least_time_counts(nothing_measured):
    seconds = iter([5.0, 0.02, 0.01, 0.03, *[0.02] * 99])

    def uneven(_way):
        Kernel.now += next(seconds)
        return torch.zeros(1)

    assert measure({"uneven": 0}, uneven, CPU)["uneven"] == pytest.approx(0.01)


# In a pipeline, beside what shares its tokens.


def chosen(pipe: HunyuanVideo) -> Runtime:
    features = TextFeatures(torch.zeros(1, 4, 8), torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 8))
    return pipe._choose_kernels(features, pipe.vae.config.latent_shape(5, 32, 48))


def test_in_a_ring_the_fastest_is_of_those_that_compute_there(official_tree, monkeypatch):
    asked = []
    monkeypatch.setattr(choice, "fastest", lambda *given: asked.append(given[-2]) or "chunked")
    pipe = HunyuanVideo.load(official_tree)
    for degrees in (Degrees(), Degrees(ring=2)):
        pipe.world = World(CPU, degrees=degrees)
        assert chosen(pipe).attention == "chunked"
    assert asked == ["auto", "parts"]


def test_pieces_are_measured_only_for_blocks_that_use_them(official_tree, tiny_transformer, monkeypatch):
    asked = []
    monkeypatch.setattr(fused, "fastest", lambda *given: asked.append(given) or "pytorch")
    pipe = HunyuanVideo.load(official_tree, Runtime(attention="sdpa"))
    chosen(pipe)
    assert len(asked) == 1
    pipe.transformer = tiny_transformer  # as it is trained
    chosen(pipe)
    assert len(asked) == 1


def test_a_video_records_its_block_ops_and_a_replay_computes_with_them(official_tree, monkeypatch):
    monkeypatch.setattr(fused, "fastest", lambda *_: "pytorch")
    made = HunyuanVideo.load(official_tree, Runtime(attention="sdpa"))("a cat", SMALL)
    recorded = made.provenance.runtime
    assert recorded.block_ops == "pytorch"
    monkeypatch.setattr(fused, "fastest", lambda *_: pytest.fail("chosen anew"))
    again = HunyuanVideo.load(official_tree, runtime_here(made.provenance))("a cat", SMALL)
    assert again.provenance.frames_sha256 == made.provenance.frames_sha256


@pytest.mark.parametrize("name", ["onednn", "native", "triton"])
def test_block_ops_that_are_not_here_are_chosen_anew_for_a_replay(official_tree, monkeypatch, name):
    made = HunyuanVideo.load(official_tree, Runtime(attention="sdpa"))("a cat", SMALL).provenance
    elsewhere = replace(made, runtime=replace(made.runtime, block_ops=name))
    monkeypatch.setattr(fused, "load", lambda *_: (_ for _ in ()).throw(ValueError("not here")))
    assert runtime_here(elsewhere).block_ops == "auto"


def test_block_ops_are_refused_in_trainings():
    with pytest.raises(ValueError, match="block_ops is 'onednn', but trainings need every value of a block"):
        check(Runtime(block_ops="onednn"), World(CPU), training=True)


def test_what_memory_was_short_for_is_tried_again_by_the_next_process(nothing_measured, monkeypatch):
    stored, expected = [], torch.ones(3)
    monkeypatch.setattr(kept, "keep", lambda _question, seconds: stored.append(dict(seconds)))

    def ask(question: str, short: bool) -> str | None:
        def run(way: str) -> torch.Tensor:
            if short and way == "large":
                raise torch.OutOfMemoryError("full")
            return expected

        ways = {"small": "1", "large": "1"}
        return measured.fastest("tries", {"asked": question}, ways, lambda name: name, lambda: measured.Trial(run, expected), CPU)

    assert ask("first", short=True) == "small" and stored == []
    ask("second", short=False)
    assert [set(seconds) for seconds in stored] == [{"small", "large"}]


def test_where_few_pairs_are_computed_the_fastest_is_of_those_pairs(nothing_measured, monkeypatch):
    seen = []
    monkeypatch.setattr(choice, "attend_to_blocks", lambda kernel, q, k, v, lists: seen.append(lists) or sdpa(q, k, v, None))
    assert fastest(2, 16, 700, torch.float32, CPU, density=0.3) in table.KERNELS
    assert {lists.counts.unique().item() for lists in seen} == {2}  # of six blocks


def test_the_density_is_part_of_the_question(nothing_measured, monkeypatch):
    asked = []
    monkeypatch.setattr(kept, "recall", lambda question: asked.append(question) or {"sdpa": 1.0})
    for density in (1.0, 0.3, 0.31, 0.8):
        fastest(2, 16, 700, torch.float32, CPU, density=density)
    assert [question.get("density_in_tenths") for question in asked] == [None, 3, 8]
