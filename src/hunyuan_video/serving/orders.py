"""From what somebody asks for to an order in the store, the same way for the API and the demo; and back to a `Request` for a worker."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from hunyuan_video.buckets import Resolution, sized
from hunyuan_video.config import RewriteMode, Sampling, check_prompt, require
from hunyuan_video.pictures import picture_in
from hunyuan_video.request import Adapter, Clip, Keyframe, Picture, Request, Rewriting, Strengths
from hunyuan_video.serving.jobs import Job, KeyReusedError, NamedLora, NamedPicture, NewJob, Order, QueueFullError
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import MAX_PICTURE_PIXELS, Rules
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.strangers import clip_in, content_of, frames_at
from hunyuan_video.weights import lora_in

MAX_STRENGTHS = 1000  # characters
MAX_KEY = 255  # characters of an idempotency key
PICTURE, LEAD, CLIP = "picture", "lead", "clip"  # what the files of what a video begins with, or is made of, are called
_ONE_PICTURE = Lock()  # is decoded at a time, for a large one takes half a gigabyte for a moment


@dataclass(frozen=True)
class Asked:
    """A video as somebody asks for it. What is left open in `sampling` is as the weights were made for."""

    prompt: str
    sampling: Sampling = Sampling()  # noqa: RUF009 (frozen)
    negative_prompt: str | None = None
    image: bytes | None = None
    """a picture's file, of any name and type"""
    loras: tuple[NamedLora, ...] = ()
    rewrite: RewriteMode | Literal["off"] | None = None
    """None: as the rules say"""
    rewritten: Rewriting | None = None
    """how the prompt came about, if it was rewritten before; it is not again"""
    model: str | None = None
    webhook: str | None = None
    remixed_from: str | None = None
    resolution: Resolution | None = None
    """in place of a size, which then follows the picture's shape"""
    keyframes: tuple[tuple[int, bytes], ...] = ()
    """pictures' files, at other frames"""
    lead: Clip | None = None
    """frames to begin with"""
    video: bytes | Clip | None = None
    """a video's file, or its frames, to be made anew"""


def place(store: Store, results: Results, rules: Rules, owner: str, asked: Asked, *, idempotency_key: str | None = None) -> Job:
    """Put a complete order into the queue; or return the job that the same `idempotency_key` of the same owner has made.

    Raises:
        ValueError: it cannot be made, or is more than the rules allow; says which field, what came and what is right.
        QueueFullError: too many wait.
        KeyReusedError: the key came with something else before.
        OSError: there is no room for what the video begins with.
    """
    require(
        asked.model in (None, rules.model),
        f"model is {asked.model!r}, which is not here; leave it out, or give {rules.model!r}.",
    )
    if asked.webhook is not None:
        rules.check_webhook(asked.webhook)
    require(
        idempotency_key is None or 0 < len(idempotency_key) <= MAX_KEY,
        f"Idempotency-Key has {len(idempotency_key or '')} characters; it must have 1 to {MAX_KEY}.",
    )
    prompt, rewritten, notice = _prompt_of(asked, rules)
    picture = None if asked.image is None else _decoded(asked.image, rules.max_picture_pixels)
    sampling = asked.sampling if asked.resolution is None else sized(asked.sampling, picture, asked.resolution)
    keyframes = [Keyframe(frame, _decoded(content, rules.max_picture_pixels, "keyframes")) for frame, content in asked.keyframes]
    lead = () if asked.lead is None else (Keyframe(0, asked.lead),)
    request = Request(
        *(prompt, sampling, asked.negative_prompt, picture, adapters_of(asked.loras, rules.loras)),
        keyframes=(*lead, *keyframes),
        video=_clip_of(asked, rules),
    )
    request.check(rules.limits)
    complete = request.complete(rules.defaults)
    rules.limits.check(complete)
    rules.check(replace(request, sampling=complete))

    job_id = f"video_{uuid.uuid4().hex}"
    files = _files_of(asked, request)
    names = {name: f"{job_id}/{name}" for name in files}
    pictures = tuple(NamedPicture(frame, names[f"{PICTURE}-{number}"]) for number, (frame, _) in enumerate(asked.keyframes))
    order = Order(
        prompt,
        complete,
        asked.negative_prompt,
        names.get(PICTURE),
        asked.loras,
        rewritten,
        notice,
        keyframes=pictures,
        lead=names.get(LEAD),
        clip=names.get(CLIP),
    )
    new = NewJob(job_id, owner, rules.model, order, asked.remixed_from, asked.webhook, idempotency_key, _digest(asked))
    if not files:
        return store.submit(new, limit=rules.max_queue)
    for name, content in files.items():  # before anybody is told that the job is there
        results.put(names[name], content)
    try:
        made = store.submit(new, limit=rules.max_queue)
    except (QueueFullError, KeyReusedError):  # after another error the job may be there; if it is not, `Upkeep` removes the picture
        results.remove(job_id)
        raise
    if made.id != job_id:
        results.remove(job_id)
    return made


def _prompt_of(asked: Asked, rules: Rules) -> tuple[str, Rewriting | None, str | None]:
    """What is made of the prompt, how, and a notice of what did not go as asked. Raises a ValueError for a prompt that is none."""
    mode = asked.rewrite or rules.rewrite or "off"
    if mode == "off" or asked.rewritten is not None:
        return asked.prompt, asked.rewritten, None
    check_prompt(asked.prompt, limits=rules.limits)
    made = rules.rewriter(asked.prompt, mode)
    return made.prompt, made.record, made.notice


def _clip_of(asked: Asked, rules: Rules) -> Clip | None:
    """The frames that a video is made of, in its size."""
    if asked.video is None or isinstance(asked.video, Clip):
        return asked.video
    own, given = rules.defaults, asked.sampling
    count, size = given.num_frames or own.num_frames, (given.height or own.height, given.width or own.width)
    rules.limits.check(replace(given, num_frames=count, height=size[0], width=size[1]))  # before so much is read
    exactly = given.num_frames is not None
    return frames_at(asked.video, rules.max_picture_pixels, "first", count, size, exactly=exactly).trimmed()


def _files_of(asked: Asked, request: Request) -> dict[str, bytes]:
    """What is to be kept for the worker, by its name in the job's folder."""
    files = {} if asked.image is None else {PICTURE: asked.image}
    files |= {f"{PICTURE}-{number}": content for number, (_, content) in enumerate(asked.keyframes)}
    files |= {} if asked.lead is None else {LEAD: content_of(asked.lead)}
    return files | ({} if request.video is None else {CLIP: content_of(request.video)})


def request_of(order: Order, results: Results, loras: Path | None) -> Request:
    """What a worker makes. Raises a ValueError if a LoRA, a picture or a clip is no longer there."""
    adapters = adapters_of(order.loras, loras)
    given = given_of(order, results)
    picture = None if given.image is None else _decoded(given.image, MAX_PICTURE_PIXELS)
    keyframes = [Keyframe(frame, _decoded(content, MAX_PICTURE_PIXELS, "keyframes")) for frame, content in given.keyframes]
    lead = () if given.lead is None else (Keyframe(0, given.lead),)
    assert given.video is None or isinstance(given.video, Clip)
    own = order.prompt, order.sampling, order.negative_prompt, picture, adapters, order.rewritten
    return Request(*own, keyframes=(*lead, *keyframes), video=given.video)


def given_of(order: Order, results: Results) -> Asked:
    """What was asked of pictures and clips, in what is otherwise as ordered. Raises a ValueError if one of them is gone."""
    pictures = tuple((each.frame, _content(each.name, results)) for each in order.keyframes)
    lead = None if order.lead is None else clip_in(_content(order.lead, results))
    clip = None if order.clip is None else clip_in(_content(order.clip, results))
    own = order.prompt, order.sampling, order.negative_prompt, image_of(order, results), order.loras
    return Asked(*own, keyframes=pictures, lead=lead, video=clip)


def image_of(order: Order, results: Results) -> bytes | None:
    """The file of the picture that a video begins with. Raises a ValueError if it is gone."""
    return None if order.image is None else _content(order.image, results)


def _content(name: str, results: Results) -> bytes:
    try:
        with results.open(name) as file:
            return file.read()
    except FileNotFoundError as error:
        raise ValueError("The picture that the video begins with is no longer there; ask for the video again.") from error


def lora_files(folder: Path | None) -> Mapping[str, Path]:
    """The LoRA files that may be asked for, by name: each .safetensors file in the folder, and each folder in it that a trainer left."""
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()) if folder is not None else ():
        file = lora_in(entry) if entry.is_dir() else entry
        if file is not None and file.suffix == ".safetensors" and not entry.name.startswith("."):
            found[entry.name.removesuffix(".safetensors")] = file
    return found


def adapters_of(loras: tuple[NamedLora, ...], folder: Path | None) -> tuple[Adapter, ...]:
    """A name is looked up among those that are there, and never made into a path. Raises a ValueError for one that is not there, or twice,
    and for strengths that are none."""
    if not loras:
        return ()
    known, names = lora_files(folder), [lora.name for lora in loras]
    for name in names:
        there = f"those that are here are {', '.join(known)}" if known else "this server has none"
        require(name in known, f"loras has {name!r}; {there}.")
        require(names.count(name) == 1, f"loras has {name!r} {names.count(name)} times; name it once.")
    return tuple(Adapter(known[lora.name], strengths_of(lora)) for lora in loras)


def strengths_of(lora: NamedLora) -> Strengths:
    """Raises a ValueError for what is no strength."""
    try:
        require(len(lora.strengths) <= MAX_STRENGTHS, "it is too long")
        return Strengths.parse(lora.strengths)
    except ValueError as error:
        raise ValueError(
            f"loras has {lora.name!r} with strengths that are none ({error}); give a number, or such as 0.8,single_blocks.0-19=0."
        ) from error


def _decoded(image: bytes, max_pixels: int, name: str = "input_reference") -> Picture:
    with _ONE_PICTURE:
        return picture_in(image, name, max_pixels)


def _digest(asked: Asked) -> str:
    """Of what was asked, to know the same again."""
    said: dict[str, Any] = asdict(replace(asked, image=None, keyframes=(), lead=None, video=None))
    contents = {"image": asked.image, "lead": asked.lead, "video": asked.video}
    for name, content in (contents | {f"frame {frame}": content for frame, content in asked.keyframes}).items():
        said[name] = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content and content.sha256
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
