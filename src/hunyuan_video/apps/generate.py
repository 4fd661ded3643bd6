"""Makes videos with a progress bar: the loop behind `hunyuan-video generate`, `replay`, `decode` and `sample_video.py`.

Replaying, resuming and decoding start from what a file tells of itself. It may come from anybody: weights, adapters, the picture and the
place of the result are the caller's, and are compared with what the file says by their content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from hunyuan_video import continuing, files, video, weights
from hunyuan_video.checkpoint import identity
from hunyuan_video.clips import read_clip
from hunyuan_video.config import FullSampling, Output, Runtime
from hunyuan_video.distributed.once import is_first, once
from hunyuan_video.distributed.started import world_size
from hunyuan_video.distributed.watch import EndedError, doing, is_lost
from hunyuan_video.distributed.world import process_group, resolve_device
from hunyuan_video.kernels import choice, fused
from hunyuan_video.pipeline import HunyuanVideo, Step
from hunyuan_video.recording import Recording
from hunyuan_video.request import Adapter, Clip, Continued, Held, Keyframe, Picture, Provenance, Request, Strengths
from hunyuan_video.rewriting import Rewritten
from hunyuan_video.signals import Waiting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What a user says to make the video of a file again: where its weights, LoRA files (whose strengths it knows) and picture are."""

    root: Path | None = None
    transformer: Path | None = None
    adapters: tuple[Adapter, ...] = ()
    image: Picture | None = None
    keyframes: tuple[Keyframe, ...] = ()
    video: Path | None = None

    def weights_of(self, made: Provenance, path: Path) -> weights.Weights:
        """Those that made `path`. Raises a ValueError for others."""
        if not made.model:
            raise ValueError(f"{path} was made during a training, with weights that were not kept; nothing can make it again.")
        found = weights.find_or_embedded(self.root, self.transformer, made.load_key, picture=made.image_sha256 is not None)
        if (model := once(partial(identity.of_model, found))) != made.model:
            raise ValueError(
                f"{path} was made with other weights (model {made.model}, with a transformer called {made.transformer!r}) than those in "
                f"{found.root} (model {model}, with {found.transformer.name}); give theirs with --weights, or a transformer apart with "
                "--transformer."
            )
        return found

    def request_of(self, made: Provenance, path: Path) -> Request:
        """The request behind `path`. Raises a ValueError if a LoRA or the picture is not given, or another one is."""
        mine = {files.sha256(weights.lora_file(adapter.path)): adapter for adapter in self.adapters}
        wanted = {adapted.sha256: adapted.name for adapted in made.adapters}
        for digest in wanted.keys() - mine.keys():
            raise ValueError(f"{path} was made with a LoRA called {wanted[digest]!r} (SHA-256 {digest[:16]}…); give that file with --lora.")
        for digest in mine.keys() - wanted.keys():
            raise ValueError(f"{mine[digest].path} is no LoRA that {path} was made with; leave it out.")
        for digest, adapter in mine.items():
            recorded = [adapted.strengths for adapted in made.adapters if adapted.sha256 == digest]
            if adapter.strengths not in (Strengths(), *recorded):
                raise ValueError(f"{adapter.path} acted with other strengths in {path}, which holds them; give the file alone.")
        if made.image_sha256 is None and self.image is not None:
            raise ValueError(f"{path} was made without a picture; leave out --image.")
        if made.image_sha256 is not None and (self.image is None or self.image.sha256 != made.image_sha256):
            which = "begins with a picture" if self.image is None else "begins with another picture"
            raise ValueError(f"{path} {which}; give the one that it began with by --image.")
        if {Held(each.frame, each.shows.sha256) for each in self.keyframes} != {*made.keyframes}:
            places = ", ".join(str(held.frame) for held in made.keyframes) or "none"
            raise ValueError(
                f"{path} was made with pictures at other frames ({places}), or other pictures; give its own by --keyframe N=FILE."
            )
        adapters = tuple(replace(mine[adapted.sha256], strengths=adapted.strengths) for adapted in made.adapters)
        clip = None if made.continued is not None else self.clip_of(made, path)
        own = made.prompt, made.sampling, made.negative_prompt, self.image, adapters, made.rewriting
        return Request(*own, keyframes=self.keyframes, video=clip)

    def clip_of(self, made: Provenance, path: Path) -> Clip | None:
        """The clip that `path` was made of, or goes on from, if there is one. Raises a ValueError if it is not given, or another one is."""
        digest, sampling = made.video_sha256, made.sampling
        if made.continued is not None:
            digest = made.continued.clip_sha256
        if (digest is None) != (self.video is None):
            raise ValueError(f"{path} was made {'without a clip; leave out' if digest is None else 'of a clip; give it by'} --video.")
        if self.video is None:
            return None
        count = sampling.num_frames if made.continued is None else None
        clip = read_clip(self.video, count, size=(sampling.height, sampling.width))
        if clip.sha256 != digest:
            raise ValueError(f"{path} was made of another clip than {self.video}; give that one by --video.")
        return clip


@dataclass(frozen=True)
class SavedState:
    """An interrupted video: how it is made, in what form it was to be written, and the latents after `step` steps."""

    made: Provenance
    output: Output
    step: int
    latents: Tensor

    @classmethod
    def read(cls, path: Path, out: Path) -> SavedState:
        """What `make_video` kept; the result is to go into the folder `out`. Raises a ValueError if the file is something else."""
        latents, stored = video.load_latents(path)
        if stored.keys() != {"step", "made", "output"}:
            raise ValueError(f"{path} holds no state of an interrupted run; finished latents are for `hunyuan-video decode`.")
        made = Provenance.from_json(stored["made"], path)
        try:
            output = Output(**stored["output"], out=out)
        except TypeError as error:
            raise ValueError(f"{path} holds settings that this version cannot use ({error}).") from error
        if type(stored["step"]) is not int or not 0 < stored["step"] <= made.sampling.num_steps:
            raise ValueError(f"{path} is damaged: it was saved after step {stored['step']} of {made.sampling.num_steps}.")
        return cls(made, output, stored["step"], latents)


def runtime_here(made: Provenance, device: str | None = None) -> Runtime:
    """The runtime, on another `device` if one is given. Kernels chosen on a CPU are none for a GPU, nor the other way round, and may be
    none for another CPU or installation; and how ranks shared the video is for that number of ranks."""
    runtime, ranks = replace(made.runtime, device=device or made.runtime.device), world_size()
    if (runtime.ulysses_degree or 1) * (runtime.ring_degree or 1) * runtime.pipefusion_stages != ranks:
        stages = 1 if runtime.pipefusion_patches is None else ranks  # which changes no value
        runtime = replace(runtime, ulysses_degree=None, ring_degree=None, pipefusion_stages=stages)
    if ranks == 1:
        runtime = replace(runtime, shard=False, wire="exact")
    here = resolve_device(runtime.device)
    alike = (here.type == "cpu") == (made.device == "cpu")
    if not alike or not (runtime.attention in choice.CHOSEN or choice.why_not(runtime.attention, here) is None):
        runtime = replace(runtime, attention="auto")
    return runtime if alike and fused.why_not(runtime.block_ops, here) is None else replace(runtime, block_ops="auto")


def make_videos(
    found: weights.Weights,
    runtime: Runtime,
    requests: Sequence[Request],
    output: Output,
    save_state: Path | None = None,
    rewrite: Callable[[list[str]], Mapping[str, Rewritten]] | None = None,
) -> Iterator[Path]:
    """Make the video of each of `requests`, which differ in prompt and seed alone, with the weights `found`; on all ranks that torchrun has
    started, if it has. With `rewrite`, prompts are what it says they become. As `make_video` says."""
    with process_group(runtime.device):
        if rewrite is not None:
            doing("rewriting")
            become = once(partial(rewrite, [request.prompt for request in requests]))  # a language model seldom says the same twice
            requests = [
                replace(request, prompt=become[request.prompt].prompt, rewriting=become[request.prompt].record) for request in requests
            ]
        doing("loading weights")
        pipe = HunyuanVideo.load(found, runtime, requests[0].sampling, requests[0].adapters)
        for number, request in enumerate(requests, start=1):
            if len(requests) > 1:
                log.info("Video %d of %d", number, len(requests))
            yield make_video(pipe, request, output, save_state=save_state)


def continue_clip(found: weights.Weights, runtime: Runtime, request: Request, clip: Clip, continued: Continued, output: Output) -> Path:
    """Go on from a clip, and write it with all that comes after it; on all ranks that torchrun has started, if it has. As `make_video`; of
    an interrupted run, the videos that were finished are written after the clip."""
    with process_group(runtime.device):
        doing("loading weights")
        pipe = HunyuanVideo.load(found, runtime, request.sampling, request.adapters)
        return _make(pipe, continuing.steps(pipe, request, clip, continued), output.of(len(clip.pixels) + 1))[0]


def make_video(
    pipe: HunyuanVideo,
    request: Request,
    output: Output,
    *,
    save_state: Path | None = None,
    resume: tuple[int, Tensor] | None = None,
) -> Path:
    """Make one video and write it; returns its path. With `save_state`, the state after every step is in that file; or if another process
    has taken its name meanwhile, beside it, as `put_beside` has it. When resuming, it is the file that was resumed. Of several ranks, which
    must make it together, the first one writes.

    Whatever fails after the last denoising step, the finished latents are kept beside where the video would be, and the log says how to
    decode them.

    Raises:
        KeyboardInterrupt: stopped by the user; no partial file is left, and the log says what was kept.
    """
    num_frames = request.complete(pipe.defaults).num_frames
    return _make(pipe, pipe.steps(request, resume=resume), output.of(num_frames), save_state, is_ours=resume is not None)[0]


def _make(
    pipe: HunyuanVideo, steps: Iterator[Step], output: Output, save_state: Path | None = None, *, is_ours: bool = False
) -> tuple[Path, Step]:
    """The file that the pipeline's `steps` end in, and the last of them. `is_ours` says that the state is in `save_state` already."""
    with _recording(output) as recording:
        return _record(pipe, steps, output, recording, save_state, is_ours=is_ours)


def _recording(output: Output) -> AbstractContextManager[Recording | None]:
    """What encodes the frames while others are decoded; None where there are none, or another rank does it."""
    if output.format == "latents" or not is_first():
        return nullcontext()
    return Recording(output.suffix, fps=output.fps, crf=output.crf)


def _record(
    pipe: HunyuanVideo, steps: Iterator[Step], output: Output, recording: Recording | None, save_state: Path | None, *, is_ours: bool
) -> tuple[Path, Step]:
    last = denoised = whole = None
    ended = False
    try:
        for last in with_progress(steps):
            if last.stage == "encode":
                denoised = None  # of the video before
            if recording is not None and last.new_frames is not None:
                recording.add(last.new_frames)
            if last.stage == "denoise" and save_state is not None and is_first():
                assert last.latents is not None
                state = {"step": last.step, "made": last.provenance.to_json(), "output": _form(output)}
                with Waiting():  # or a stop between the two lines would leave a file that nobody is told of
                    save_state = video.save_latents(last.latents, save_state, state, overwrite=is_ours)
                    is_ours = True
            if last.stage == "denoise" and last.step == last.total:
                denoised = last
                if output.format == "latents":
                    break
            if last.frames is not None and last.provenance.continued is not None:
                whole = last
        ended = True
        assert last is not None
        return once(partial(write, last, output, pipe, recording)), last
    except BaseException as error:  # whatever it is, it ends what may have taken hours, and goes on
        if not is_first():
            pass
        elif whole is not None and not ended:
            _keep(whole, output, pipe, recording)
        elif denoised is not None:
            _keep(denoised, replace(output, format="latents", crf=None), pipe, None)
        elif last is not None and last.provenance.continued is not None:
            log.warning("Stopped before anything came after the clip.")
        elif isinstance(error, KeyboardInterrupt | EndedError) or is_lost(error):
            say_what_is_kept(save_state if is_ours else None)
        raise


def _keep(step: Step, output: Output, pipe: HunyuanVideo, recording: Recording | None) -> None:
    """Write what there is of a video that cannot be finished, its latents, or of several the first ones, and say how to go on."""
    try:
        path = write(step, output, pipe, recording)
    except OSError as error:
        log.warning("What was finished could not be kept, either (%s).", error)
        return
    if recording is not None:
        assert step.provenance.continued is not None
        times = step.provenance.continued.times
        log.warning("Kept: %s, with the first %d that came after the clip; go on from it with `hunyuan-video continue`.", path, times)
        return
    again = f"`hunyuan-video decode {path}` (and the same --weights, --transformer and --out, if you gave any)"
    log.warning("Kept: %s, the finished latents; make the video of them with %s.", path, again)


def say_what_is_kept(save_state: Path | None) -> None:
    """After a video that was not finished, whose state may be in a file."""
    if save_state is not None:
        besides = "--weights, --transformer, --lora, --image, --last, --keyframe, --video and --out"
        again = f"`hunyuan-video generate --resume {save_state}` (and the same {besides}, if you gave any)"
        log.warning("Stopped. Kept: %s, the state after the last whole step; continue with %s.", save_state, again)
    else:
        log.warning("Stopped. Nothing of this video was kept (--save-state FILE keeps the state after every step).")


def with_progress(steps: Iterator[Step], at: str = "encoding text") -> Iterator[Step]:
    """The same steps, the first of which comes after what is said `at` the start, behind a progress bar with stage, step and remaining time
    (on a terminal only)."""
    doing(at)
    with tqdm(unit="step", desc=at, leave=False, disable=None if is_first() else True) as bar:
        for step in steps:
            if step.stage != "encode":
                bar.total = step.total
                bar.update(step.step - bar.n)
            last = f"{at}, step {step.step} of {step.total}"
            if step.stage != "decode" and step.step == step.total:  # on to the next stage
                bar.reset()
                bar.total = None
                at = "denoising" if step.stage == "encode" else "decoding"
                bar.set_description(at)
                last = at
            doing(last)
            yield step


def traits(made: Provenance, pipe: HunyuanVideo) -> list[str]:
    """What tells a video from others of its prompt and seed with these weights: whatever is not as they were made for, in short words."""
    own = made.sampling
    said = [word for word, usual in zip(_words(own), _words(pipe.defaults), strict=True) if word != usual]
    if made.load_key != "module":
        said.append(made.load_key)
    if made.runtime.wire != "exact":
        said.append(f"wire-{made.runtime.wire}")
    if made.runtime.pipefusion_patches is not None:
        said.append(f"{made.runtime.pipefusion_patches}patches")
    if made.runtime.step_cache != "off":
        said.append(f"{made.runtime.step_cache}{made.runtime.cache_threshold:g}")
    if made.runtime.progressive != "off":
        said.append(f"{made.runtime.progressive}-until{made.runtime.progressive_until:g}")
    if made.runtime.window is not None:
        said.append(f"window{made.runtime.window}")
    if made.runtime.attention_density < 1:
        said.append(f"{made.runtime.sparse_pattern}{made.runtime.attention_density:g}")
    if own.cfg_scale > 1 and made.negative_prompt is not None and made.negative_prompt != pipe.origin.negative_prompt:
        said.append(f"negative-{files.short_digest(made.negative_prompt)}")
    if made.image_sha256 is not None:
        said.append(f"image-{made.image_sha256[:6]}")
    said += [f"at{held.frame}-{held.sha256[:6]}" for held in made.keyframes]
    if made.video_sha256 is not None:
        said.append(f"of-{made.video_sha256[:6]}-strength{own.strength:g}")
    if made.continued is not None:
        said.append(f"{made.continued.times}after-{made.continued.clip_sha256[:6]}-overlap{made.continued.overlap}")
    if own.loop:
        said.append("loop")
    for adapted in made.adapters:
        strengths = adapted.strengths
        word = f"lora-{files.words_of(Path(adapted.name).stem, 20)}-{adapted.sha256[:4]}"  # trainers call all of theirs alike
        word += "" if strengths.everywhere == 1 else f"-{strengths.everywhere:g}"
        said.append(f"{word}-{files.short_digest(str(strengths.blocks))}" if strengths.blocks else word)
    return said


def _words(sampling: FullSampling) -> list[str]:
    shift, guidance, cfg_scale = (str(n).removesuffix(".0") for n in (sampling.shift, sampling.guidance, sampling.cfg_scale))
    schedule = sampling.schedule if sampling.schedule == "shift" else f"{sampling.schedule}_{sampling.linear_steps}linear"
    return [
        f"{sampling.num_steps}steps", f"{sampling.height}x{sampling.width}", f"{sampling.num_frames}frames", f"shift{shift}",
        schedule, f"guidance{guidance}", f"cfg{cfg_scale}", sampling.solver, f"{sampling.noise}-noise", sampling.stability,
    ]  # fmt: skip


def write(step: Step, output: Output, pipe: HunyuanVideo, recording: Recording | None) -> Path:
    """Write what was recorded of a pipeline's video (or where nothing was, its latents) under a name made from its prompt, its seed and
    what else is special about it; never overwrites."""
    made = step.provenance
    special = traits(made, pipe) + ([] if output.fps == Output.fps else [f"{output.fps}fps"])
    name = files.safe_name(made.prompt, made.sampling.seed, special) + (f"_{output.name_suffix}" if output.name_suffix else "")
    path = output.out / f"{name}{output.suffix}"
    if recording is None:
        assert step.latents is not None
        return video.save_latents(step.latents, path, made.to_json(), overwrite=False)
    return video.save_recording(recording, path, metadata=made.to_json() if output.metadata else None, overwrite=False)


def resume(path: Path, given: Given, out: Path) -> Path:
    """Finish the video whose state is in `path`, which goes on being updated, into the folder `out`."""
    state = SavedState.read(path, out)
    if is_first():  # who writes
        files.check_output(state.output)
    request = given.request_of(state.made, path)
    runtime = runtime_here(state.made)
    with process_group(runtime.device):
        pipe = _load(given, state.made, path, runtime, request.adapters)
        return make_video(pipe, request, state.output, save_state=path, resume=(state.step, state.latents))


def replay(path: Path, given: Given, device: str | None, output: Output) -> tuple[Path, bool]:
    """Make the video of a file again; returns the new file and whether its frames are identical to the first ones."""
    stored = video.read_metadata(path)
    _refuse_unfinished(stored, path)
    made = Provenance.from_json(stored, path)
    if made.frames_sha256 is None:
        advice = "`hunyuan-video decode` makes a video of it" if path.suffix == files.LATENTS_SUFFIX else "it was not written by `generate`"
        raise ValueError(f"{path} knows no SHA-256 of frames to compare with; {advice}.")
    if made.rewriting is not None:
        log.info(
            "Its prompt is %r, rewritten (%s, by %r) from %r.",
            made.prompt,
            made.rewriting.mode,
            made.rewriting.backend,
            made.rewriting.original,
        )
    files.check_output(output)
    request = given.request_of(made, path)
    pipe = _load(given, made, path, runtime_here(made, device), request.adapters)
    steps = pipe.steps(request)
    if made.continued is not None:
        clip = given.clip_of(made, path)
        assert clip is not None
        steps = continuing.steps(pipe, request, clip, made.continued)
    path, last = _make(pipe, steps, output.of(made.sampling.num_frames))
    return path, last.provenance.frames_sha256 == made.frames_sha256


def decode(path: Path, given: Given, runtime: Runtime, output: Output) -> Path:
    """Make a video of finished latents. What is recorded is the runtime that decoded them."""
    latents, stored = video.load_latents(path)
    _refuse_unfinished(stored, path)
    if output.format == "latents":
        raise ValueError(f"{path} holds latents already; choose a video format.")
    made = Provenance.from_json(stored, path)
    output = output.of(made.sampling.num_frames)
    files.check_output(output)
    # No adapters: they acted while the latents were made. Their kernel is for whoever replays the video.
    runtime = replace(runtime, attention=made.runtime.attention, block_ops=made.runtime.block_ops)
    pipe = _load(given, made, path, runtime, ())
    last = None
    with Recording(output.suffix, fps=output.fps, crf=output.crf) as recording:
        for last in with_progress(pipe.decoding(latents, replace(made, runtime=runtime)), "decoding"):
            assert last.new_frames is not None
            recording.add(last.new_frames)
        assert last is not None
        return write(last, output, pipe, recording)


def _refuse_unfinished(stored: dict[str, Any], path: Path) -> None:
    if "step" in stored:
        raise ValueError(f"{path} holds the state of an unfinished run; finish it with `hunyuan-video generate --resume {path}`.")


def _load(given: Given, made: Provenance, path: Path, runtime: Runtime, adapters: Sequence[Adapter]) -> HunyuanVideo:
    return HunyuanVideo.load(given.weights_of(made, path), runtime, made.sampling, adapters)


def _form(output: Output) -> dict[str, Any]:
    """All but the place, which is for whoever resumes to say."""
    return {name: value for name, value in asdict(output).items() if name != "out"}
