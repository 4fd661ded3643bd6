"""Blocks that stream: on a device that is the CPU under another name, so that every copy is real and every byte counted."""

from __future__ import annotations

import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
from adapters import random_lora
from conftest import TINY
from torch import nn
from torch.utils.checkpoint import checkpoint

from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms import fp8, lora, offload
from hunyuan_video.transforms.offload import Traveller, lock_at_home, locked, offload_blocks, on_device, tensors_of

ELSEWHERE = torch.device("cpu:0")  # not equal to "cpu", where tensors say they are: so they are copied there


def layers(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(size, size, bias=False) for size in sizes)).requires_grad_(False)


def addresses(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors_of(module)]


def test_a_module_is_on_the_device_inside_the_block_and_at_home_after_it():
    module, buffered = nn.Linear(2, 2), nn.BatchNorm1d(2)
    both = nn.Sequential(module, buffered)
    home = addresses(both)
    with on_device(both, ELSEWHERE):
        assert not set(home) & set(addresses(both))
    assert addresses(both) == home


def test_a_module_that_is_there_already_costs_nothing():
    module = nn.Linear(2, 2)
    home = addresses(module)
    with on_device(module, torch.device("cpu")):
        assert addresses(module) == home


def test_a_module_comes_home_from_a_block_that_fails():
    module = nn.Linear(2, 2)
    home = addresses(module)
    with pytest.raises(RuntimeError, match="out of memory"), on_device(module, ELSEWHERE):
        raise RuntimeError("out of memory")
    assert addresses(module) == home


def test_the_next_block_departs_before_one_works_and_each_leaves_after_its_work(monkeypatch):
    blocks, events = layers(2, 2, 2), []
    offload_blocks(list(blocks), ELSEWHERE)
    numbers = {id(block.weight): number for number, block in enumerate(blocks)}
    for name in ("depart", "arrive", "leave"):
        original = getattr(Traveller, name)

        def watched(traveller, name=name, original=original):
            events.append(f"{name} {numbers[id(traveller.tensors[0])]}")
            original(traveller)

        monkeypatch.setattr(Traveller, name, watched)
    for number, block in enumerate(blocks):
        forward = block.forward
        block.forward = lambda x, number=number, forward=forward: events.append(f"work {number}") or forward(x)
    blocks(torch.ones(1, 2))
    assert events == [
        "arrive 0", "depart 0", "depart 1", "work 0", "leave 0",
        "arrive 1", "depart 2", "work 1", "leave 1",
        "arrive 2", "work 2", "leave 2",
    ]  # fmt: skip


def test_two_blocks_are_on_the_device_at_most_and_none_between_passes():
    blocks = layers(64, 64, 64, 64)
    offload_blocks(list(blocks), ELSEWHERE)
    with LiveBytes(blocks) as seen, torch.no_grad():
        for _ in range(2):
            y = blocks(torch.ones(1, 64))
            del y
            assert seen.live == 0
    assert 2 * 64 * 64 * 4 <= seen.most < 2 * 64 * 64 * 4 + 2000


def test_blocks_are_home_after_one_has_failed():
    blocks = layers(8, 8, 8)
    offload_blocks(list(blocks), ELSEWHERE)
    home = addresses(blocks)
    blocks[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with LiveBytes(blocks) as seen:
        with pytest.raises(RuntimeError, match="out of memory"):
            blocks(torch.ones(1, 8))
    assert addresses(blocks) == home and seen.live < 8 * 8 * 4


def latents_and_condition(model: HunyuanVideoTransformer):
    generator = torch.Generator().manual_seed(3)
    states, pooled = torch.randn(1, 5, TINY.text_dim, generator=generator), torch.randn(1, TINY.pooled_dim, generator=generator)
    condition = model.condition(states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.ones(1))
    return torch.randn(1, 4, 2, 4, 6, generator=generator), torch.full((1,), 500.0), condition


@torch.no_grad()
def run(model: HunyuanVideoTransformer, streamed: list[torch.Tensor]) -> torch.Tensor:
    with on_device(model, ELSEWHERE, streamed):
        return model(*latents_and_condition(model))


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize("adapter", ["none", "live", "merged", "added later"])
@torch.no_grad()
def test_streaming_changes_no_value_with_any_other_transform(tiny_transformer, adapter, eight_bits):
    adapters = random_lora(tiny_transformer)
    if adapter == "merged":
        lora.merge_lora(tiny_transformer, adapters)
    if eight_bits:
        fp8.quantize(tiny_transformer)
    if adapter == "live":
        lora.apply_lora(tiny_transformer, adapters)
    plain = copy.deepcopy(tiny_transformer)
    streamed = offload_blocks([*tiny_transformer.double_blocks, *tiny_transformer.single_blocks], ELSEWHERE)
    if adapter == "added later":
        for model in (plain, tiny_transformer):
            lora.apply_lora(model, adapters)
    expected = plain(*latents_and_condition(plain))
    state = {name: tensor.clone() for name, tensor in tiny_transformer.state_dict().items()}
    assert torch.equal(run(tiny_transformer, streamed), expected)
    assert torch.equal(run(tiny_transformer, streamed), expected)  # nor does a second pass
    after = tiny_transformer.state_dict()
    assert all(torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)) for name, tensor in state.items())


@torch.no_grad()
def test_an_adapter_comes_off_streamed_blocks(tiny_transformer):
    expected = tiny_transformer(*latents_and_condition(tiny_transformer))
    lora.apply_lora(tiny_transformer, random_lora(tiny_transformer))
    streamed = offload_blocks([*tiny_transformer.double_blocks, *tiny_transformer.single_blocks], ELSEWHERE)
    assert not torch.equal(run(tiny_transformer, streamed), expected)
    lora.remove_lora(tiny_transformer)
    assert torch.equal(run(tiny_transformer, streamed), expected)


class Cudart:
    def __init__(self, error: int):
        self.error, self.locked = error, []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.locked.append(range(address, address + size))
        return self.error

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        return 0


def test_blocks_lock_whole_pages_and_share_none(monkeypatch):
    cudart = Cudart(error=0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    owners = layers(8, 16, 24)
    homes = [locked(1000 * (1 + place), ELSEWHERE, owner) for place, owner in enumerate(owners)]
    assert all(pages.start % 4096 == pages.stop % 4096 == 0 for pages in cudart.locked)
    assert all(
        home.data_ptr() in pages and home.data_ptr() + home.nbytes - 1 in pages for home, pages in zip(homes, cudart.locked, strict=True)
    )
    assert len(set().union(*cudart.locked)) == sum(map(len, cudart.locked))


def test_what_cannot_be_locked_streams_all_the_same(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Cudart(error=712))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    home = locked(1000, ELSEWHERE, layers(8))
    assert home.nbytes == 1000 and "CUDA error 712" in caplog.text


def test_models_are_locked_once_and_unchanged(monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    module, cudart = layers(8, 16), Cudart(error=0)
    before, (streamed, _) = copy.deepcopy(module.state_dict()), tensors_of(module)
    lock_at_home(module, torch.device("cuda"), [streamed])
    assert len(cudart.locked) == 1
    pages = cudart.locked[0]
    assert [address in pages for address in addresses(module)] == [False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# --- Pass after pass ---


def test_the_last_block_of_a_pass_brings_the_first_one_of_the_next():
    blocks = layers(64, 64, 64)
    streamed = offload_blocks(list(blocks), ELSEWHERE)
    home = addresses(blocks)
    with LiveBytes(blocks) as seen, torch.no_grad():
        with on_device(blocks, ELSEWHERE, streamed, repeated=True):
            for _ in range(2):
                y = blocks(torch.ones(1, 64))
                del y
                assert seen.live == 64 * 64 * 4
        assert seen.live == 0
    assert seen.most < 2 * 64 * 64 * 4 + 2000 and addresses(blocks) == home


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_on_the_device_by_passes_that_are_interrupted(error):
    blocks = layers(64, 64, 64)
    streamed = offload_blocks(list(blocks), ELSEWHERE)
    home = addresses(blocks)
    blocks[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(error()))
    with LiveBytes(blocks) as seen:
        with pytest.raises(error), on_device(blocks, ELSEWHERE, streamed, repeated=True):
            blocks(torch.ones(1, 64))
    assert addresses(blocks) == home and seen.live < 64 * 64 * 4


def test_in_a_training_two_frozen_blocks_are_on_the_device_at_most_and_gradients_are_the_same():
    """Also after a pass that has none, such as a validation's, in between."""
    plain = layers(64, 64, 64, 64)
    blocks, trained = copy.deepcopy(plain), torch.nn.Parameter(torch.full((1, 64), 0.5))
    streamed = offload_blocks(list(blocks), ELSEWHERE)

    def gradient(stack: nn.Sequential) -> torch.Tensor:
        x = trained * 2
        for block in stack:
            x = checkpoint(block, x, use_reentrant=False)
        (found,) = torch.autograd.grad(x.square().sum(), trained)
        return found

    expected = gradient(plain)
    with torch.no_grad():
        after = plain(torch.ones(1, 64))
    with LiveBytes(blocks) as seen, on_device(blocks, ELSEWHERE, streamed):
        for _ in range(2):
            assert torch.equal(gradient(blocks), expected)
            with torch.no_grad():
                assert torch.equal(blocks(torch.ones(1, 64)), after)
    assert 2 * 64 * 64 * 4 <= seen.most < 2 * 64 * 64 * 4 + 6000 and seen.live < 2000


class Stream:
    """What of CUDA's streams matters here: which work this one knows to be done before its own next."""

    def __init__(self):
        self.done: set[str] = set()

    def wait_stream(self, other: Stream) -> None:
        self.done |= other.done


def test_streams_wait_for_each_other_and_only_the_first_copy_of_all_passes_is_exposed(monkeypatch):
    computing, copying, inside = Stream(), Stream(), []

    @contextmanager
    def on(stream: Stream):
        inside.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: computing)
    monkeypatch.setattr(torch.cuda, "stream", on)
    events: list[str] = []
    latest: dict[int, str] = {}  # copy of each block

    class Watched(Traveller):
        def __init__(self, block, device, _stream):
            super().__init__(block, device, None)
            self.stream = copying

        def depart(self) -> None:
            starts = self.copy is None
            super().depart()
            if starts:
                assert {event for event in events if "computes" in event} <= copying.done, "it may overwrite what is still read"
                assert inside.pop() is copying
                latest[id(self.tensors[0])] = f"{number[id(self.tensors[0])]} comes, event {len(events)}"
                copying.done.add(latest[id(self.tensors[0])])
                events.append(latest[id(self.tensors[0])])

    blocks = layers(4, 4, 4)
    number = {id(block.weight): place for place, block in enumerate(blocks)}
    monkeypatch.setattr(offload, "Traveller", Watched)
    streamed = offload_blocks(list(blocks), ELSEWHERE)
    for block in blocks:

        def forward(x, block=block, forward=block.forward):
            assert latest[id(block.weight)] in computing.done, "its weights may not have come yet"
            events.append(f"{number[id(block.weight)]} computes, event {len(events)}")
            computing.done.add(events[-1])
            return forward(x)

        block.forward = forward
    with on_device(blocks, ELSEWHERE, streamed, repeated=True):
        for _ in range(2):
            blocks(torch.ones(1, 4))
    assert [event.split(",")[0] for event in events] == [
        "0 comes", "1 comes", "0 computes", "2 comes", "1 computes", "0 comes", "2 computes",
        "1 comes", "0 computes", "2 comes", "1 computes", "0 comes", "2 computes",
    ]  # fmt: skip
    assert copying.done <= computing.done, "memory is freed that is still written"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_blocks_stream_through_a_gpu_unchanged():
    device = torch.device("cuda")
    blocks, x = layers(*[2048] * 12), torch.randn(8, 2048)
    expected = copy.deepcopy(blocks).to(device)(x.to(device))
    offload_blocks(list(blocks), device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        assert torch.equal(blocks(x.to(device)), expected)
    assert torch.cuda.max_memory_allocated(device) - before < 2.2 * 2048 * 2048 * 4
    assert {weight.device.type for weight in blocks.parameters()} == {"cpu"}
