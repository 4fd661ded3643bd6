"""`gradio_server.py`: the page by the official flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from hunyuan_video.cli import Demo
from hunyuan_video.commands import official_page
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.config import Sampling
from hunyuan_video.weights import EMBEDDED


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER_NAME", "SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_BASE", str(EMBEDDED))


def page(*flags: str) -> Demo:
    return official_page.translate(official_page.parser().parse_args(flags))


def test_the_official_page_is_where_it_was_and_writes_where_it_did() -> None:
    opened = page("--flow-reverse")
    assert (opened.host, opened.port, opened.place.data, opened.which.weights) == ("127.0.0.1", 8081, Path("gradio_outputs"), EMBEDDED)
    assert opened.sampling == Sampling()  # as the weights were made for


def test_the_environment_says_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("SERVER_PORT", "9000")
    assert (page().host, page().port) == ("0.0.0.0", 9000)
    assert (Demo().host, Demo().port) == ("0.0.0.0", 9000)


def test_flags_say_where_the_controls_stand_and_how_videos_are_made() -> None:
    opened = page(
        *("--video-size", "544", "960", "--video-length", "65", "--infer-steps", "30", "--flow-shift", "9", "--embedded-cfg-scale", "5"),
        *("--prompt", "A cat.", "--neg-prompt", "rain", "--seed", "4", "--use-fp8", "--use-cpu-offload", "--save-path", "mine"),
    )
    assert opened.sampling == Sampling(height=544, width=960, num_frames=65, num_steps=30, shift=9.0, guidance=5.0, seed=4)
    assert (opened.prompt, opened.negative_prompt, opened.place.data) == ("A cat.", "rain", Path("mine"))
    assert opened.runtime.fp8 and opened.runtime.offload == "models"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-videos", "2"], "--num-videos is for sample_video.py"),
        (["--reproduce"], "--reproduce is for sample_video.py"),
        (["--ulysses-degree", "8"], "--ulysses-degree is for sample_video.py"),
        (["--rope-theta", "100"], "the released weights need 256"),
        (["--infer-steps", "0"], "--infer-steps is 0; it must be 1 or more"),
        (["--model", "HYVideo-T/2"], "give --model HYVideo-T/2-cfgdistill"),
    ],
)
def test_what_means_nothing_to_a_page_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        page(*flags)


def test_a_page_goes_to_its_process_by_flags_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from hunyuan_video.apps.parse import parse

    opened = page("--infer-steps", "30", "--prompt", "A cat.", "--seed", "4", "--use-fp8")
    assert parse(Demo, flags_of(opened), "hunyuan-video demo") == opened


def test_an_address_for_others_needs_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUNYUAN_VIDEO_API_KEYS", raising=False)
    with pytest.raises(ValueError, match="there are no keys; give --api-key-file"):
        Demo(host="0.0.0.0", workers=0).run()
