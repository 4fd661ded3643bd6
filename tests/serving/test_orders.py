"""From what is asked for to an order, and back to a request."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.exc import OperationalError

from hunyuan_video.config import FullSampling, Limits, RewriteMode, Sampling
from hunyuan_video.request import Request, Rewriting, Strengths
from hunyuan_video.rewriting import Rewritten
from hunyuan_video.serving.jobs import Job, KeyReusedError, NamedLora, NewJob, QueueFullError
from hunyuan_video.serving.orders import Asked, image_of, lora_files, place, request_of
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.store import Store

SMALL = FullSampling(height=64, width=64, num_frames=9, num_steps=4)


def png(height: int = 8, width: int = 8, level: int = 7) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    folder = tmp_path / "loras"
    (folder / "mine").mkdir(parents=True)
    for file in ("style.safetensors", "notes.txt", "old.bin", ".hidden.safetensors", "mine/lora_kohya.safetensors"):
        (folder / file).write_bytes(b"")
    return folder


def rules(**more: object) -> Rules:
    return Rules("tiny", SMALL, lambda request: None, **more)  # pyright: ignore[reportArgumentType]


def test_the_picture_of_a_job_stays_though_the_answer_was_lost(store: Store, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = store.submit

    def lost(new: NewJob, *, limit: int | None = None) -> Job:
        submit(new, limit=limit)
        raise OperationalError("commit", {}, Exception("server closed the connection"))

    monkeypatch.setattr(store, "submit", lost)
    with pytest.raises(OperationalError):
        place(store, results, rules(image_to_video=True), "ann", Asked("a cat", image=png()))
    (job,), _ = store.list()
    assert image_of(job.order, results) == png()


def test_an_order_has_nothing_left_open(store: Store, results: Results) -> None:
    first, second = (place(store, results, rules(), "ann", Asked("a cat", Sampling(num_steps=2))).order for _ in range(2))
    assert replace(first.sampling, seed=0) == replace(SMALL, num_steps=2)
    assert first.sampling.seed != second.sampling.seed


def test_a_worker_gets_what_was_asked_for(store: Store, results: Results, loras: Path) -> None:
    asked = Asked("a cat", Sampling(seed=3), "blur", png(), (NamedLora("style", "0.5,single_blocks=0"), NamedLora("mine")))
    order = place(store, results, rules(image_to_video=True, loras=loras), "ann", asked).order
    request = request_of(order, results, loras)
    assert (request.prompt, request.negative_prompt, request.sampling) == ("a cat", "blur", replace(SMALL, seed=3))
    assert request.image is not None and (request.image.pixels == 7).all()
    assert [adapter.path for adapter in request.adapters] == [loras / "style.safetensors", loras / "mine/lora_kohya.safetensors"]
    assert request.adapters[0].strengths == Strengths.parse("0.5,single_blocks=0")


def test_a_resolution_becomes_the_size_of_the_pictures_shape(store: Store, results: Results) -> None:
    asked = Asked("a cat", Sampling(num_frames=5), image=png(72, 128), resolution="360p")
    sampling = place(store, results, rules(image_to_video=True, limits=Limits()), "ann", asked).order.sampling
    assert (sampling.height, sampling.width) == (352, 608)
    with pytest.raises(ValueError, match="follows the shape of a picture, but there is none; give one"):
        place(store, results, rules(image_to_video=True), "ann", replace(asked, image=None))


def test_only_loras_in_a_safe_format_are_listed(loras: Path) -> None:
    assert list(lora_files(loras)) == ["mine", "style"] and lora_files(None) == {}


@pytest.mark.parametrize("name", ["../style", "/etc/passwd", "style.safetensors", "", ".hidden", "old"])
def test_a_lora_that_is_not_listed_is_refused(name: str, store: Store, results: Results, loras: Path) -> None:
    with pytest.raises(ValueError, match="those that are here are mine, style"):
        place(store, results, rules(loras=loras), "ann", Asked("a cat", loras=(NamedLora(name),)))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked("a cat", Sampling(num_steps=9)), "num_steps is 9; it must be 8 or less"),
        (Asked("a cat", Sampling(num_frames=13)), "pixels; they must be"),
        (Asked("a" * 101), "the limit is 100"),
        (Asked("a cat", negative_prompt="a" * 101), "the limit is 100"),
        (Asked("a cat", model="sora-2"), "leave it out, or give 'tiny'"),
        (Asked("a cat", webhook="https://example.com"), "sends no webhooks"),
        (Asked("a cat", loras=(NamedLora("style", "strong"),)), "strengths that are none"),
        (Asked("a cat", loras=(NamedLora("style"), NamedLora("style"))), "name it once"),
        (Asked("a cat", image=b"GIF89a"), "input_reference"),
    ],
)
def test_more_than_is_allowed_is_refused_and_leaves_nothing(
    asked: Asked, sentence: str, store: Store, results: Results, loras: Path
) -> None:
    limits = Limits(max_steps=8, max_pixels=9 * 64 * 64, max_prompt_characters=100)
    with pytest.raises(ValueError, match=sentence):
        place(store, results, rules(limits=limits, loras=loras), "ann", asked)
    assert results.folders() == [] and store.list()[0] == []


def test_the_weights_have_a_say(store: Store, results: Results) -> None:
    def check(request: Request) -> None:
        assert request.sampling.num_frames == SMALL.num_frames
        raise ValueError("trained for text alone")

    with pytest.raises(ValueError, match="text alone"):
        place(store, results, replace(rules(), check=check), "ann", Asked("a cat", image=png()))


def test_the_same_key_makes_one_job_and_one_picture(store: Store, results: Results) -> None:
    one, two = (place(store, results, rules(), "ann", Asked("a cat", image=png()), idempotency_key="k") for _ in range(2))
    assert one == two and results.folders() == [one.id]
    for other in (Asked("a cat", image=png(level=8)), Asked("a dog", image=png())):
        with pytest.raises(KeyReusedError):
            place(store, results, rules(), "ann", other, idempotency_key="k")
    assert results.folders() == [one.id]


def test_a_full_queue_keeps_no_picture(store: Store, results: Results) -> None:
    place(store, results, rules(max_queue=1), "ann", Asked("a cat"))
    with pytest.raises(QueueFullError):
        place(store, results, rules(max_queue=1), "ann", Asked("a cat", image=png()))
    assert results.folders() == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"keys": {"ann": "secret"}}, "SHA-256"),
        ({"webhook_hosts": ("example.com",)}, "no secret"),
        ({"webhook_secret": "whsec_short"}, "24 bytes"),
        ({"max_queue": 0}, "max_queue is 0"),
        ({"loras": Path("nowhere")}, "no folder"),
        ({"limits": Limits(max_frames=5)}, "num_frames is 9"),
    ],
)
def test_rules_that_cannot_be_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rules(**given)


def test_a_prompt_is_rewritten_as_asked_or_as_the_rules_say(store: Store, results: Results) -> None:
    def rewriter(prompt: str, mode: RewriteMode) -> Rewritten:
        return Rewritten(f"{mode}: {prompt}", prompt, mode, "test", "a notice")

    by_rule = rules(rewrite="normal", rewriter=rewriter)
    prompts = [place(store, results, by_rule, "ann", Asked("cat", rewrite=mode)).order.prompt for mode in (None, "master", "off")]
    assert prompts == ["normal: cat", "master: cat", "cat"]
    order = place(store, results, rules(rewriter=rewriter), "ann", Asked("cat", rewrite="normal")).order
    assert order.rewritten == Rewriting("cat", "normal", "test") and order.notice == "a notice"
    assert request_of(order, results, None).rewriting == order.rewritten


def test_what_was_rewritten_before_is_not_again(store: Store, results: Results) -> None:
    before = Rewriting("\u732b", "normal", "offline")
    order = place(store, results, rules(rewrite="master"), "ann", Asked("A cat", rewritten=before)).order
    assert (order.prompt, order.rewritten) == ("A cat", before)
