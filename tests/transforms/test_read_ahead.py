"""Reading ahead: what is read when, what stays, and no change of a value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from hunyuan_video.checkpoint import read_state_dict
from hunyuan_video.transforms import read_ahead as module
from hunyuan_video.transforms.read_ahead import PAGE_OUT, WILL_NEED, Reader, Span, mapped_spans, passing, read_ahead, size_of

needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
WIDTH = 1024
SIZE = 4 * WIDTH**2  # bytes of a layer


@pytest.fixture
def layers(tmp_path: Path) -> nn.Sequential:
    """Six layers, each with its weight in a file."""
    save_file({f"{i}.weight": torch.randn(WIDTH, WIDTH) / 32 for i in range(6)}, tmp_path / "a.safetensors")
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(6)))
    model.load_state_dict(read_state_dict(tmp_path / "a.safetensors"), assign=True)
    return model.requires_grad_(False)


@needs_proc
def test_only_what_lies_in_a_file_has_pages(layers):
    spans = mapped_spans(layers)
    assert 6 * SIZE <= size_of(spans) <= 6 * SIZE + 2 * 4096 and len(spans) == 1
    assert all(span.start % 4096 == 0 == span.end % 4096 for span in spans)
    assert mapped_spans(nn.Linear(8, 8)) == []


@needs_proc
@pytest.mark.parametrize("room", [0, 3 * SIZE, 100 * SIZE])
def test_reading_ahead_changes_no_bit(layers, room):
    x = torch.randn(3, WIDTH)
    expected = layers(x)
    read_ahead(list(layers), room)
    assert all(torch.equal(layers(x), expected) for _ in range(3))


@needs_proc
@pytest.mark.skipif(module.sys.platform != "linux", reason="pages are let go on Linux")
def test_what_has_no_room_leaves_memory(layers, tmp_path):
    def resident() -> int:
        """Bytes of the file in this process's page table."""
        smaps = Path("/proc/self/smaps").read_text()
        return sum(1024 * int(rss) for rss in re.findall(r"a\.safetensors\n(?:.*\n)*?Rss:\s+(\d+) kB", smaps))

    layers(torch.randn(1, WIDTH))
    assert resident() > 5.9 * SIZE
    module.advise(mapped_spans(layers), PAGE_OUT)
    assert resident() < SIZE


class Recorder:
    """In place of `advise`: what was asked of the system, by the number of the block."""

    def __init__(self):
        self.calls: list[tuple[str, int]] = []

    def __call__(self, spans: list[Span], *advice: int) -> None:
        self.calls.append(("read" if WILL_NEED in advice else "let go", spans[0].start))


def test_the_next_block_and_the_next_that_does_not_stay_are_read_while_one_computes(monkeypatch):
    monkeypatch.setattr(module, "advise", recorder := Recorder())
    reader = Reader([[Span(i, i + 1)] for i in range(6)], room=4)
    reader.passing = [False, False, False, True, False, True]
    for index in range(6):
        reader.begin(index)
        reader.thread.submit(lambda: None).result()  # all that was asked for by now has been done
        recorder.calls.append(("compute", index))
        reader.end(index)
    reader.thread.shutdown()
    steps = [call for call in recorder.calls if call[0] != "compute"]
    assert recorder.calls.index(("read", 3)) < recorder.calls.index(("compute", 0))  # it does not stay, and is far
    for index in range(5):
        assert recorder.calls.index(("read", index + 1)) < recorder.calls.index(("compute", index))
    assert [block for kind, block in steps if kind == "let go"] == [3, 5]
    assert ("read", 0) in recorder.calls[recorder.calls.index(("compute", 4)) :]  # the next pass begins with it


def test_blocks_in_memory_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4))
    read_ahead(list(model), 0)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(0, 3000))
def test_what_stays_fits_into_the_room(sizes, room):
    stays = sum(size for size, leaves in zip(sizes, passing(sizes, room), strict=True) if not leaves)
    assert stays <= room
    assert stays == sum(sizes) or stays > room - 2 * max(sizes)


def test_what_does_not_stay_is_spread_evenly():
    assert passing([1] * 8, 6) == [True, False, False, False, True, False, False, False]
