"""The pipeline: a prompt goes in, frames come out.

    pipe = HunyuanVideo.load()
    video = pipe("A cat walks on the grass, realistic style.", seed=0)
    save_video(video.frames, "cat.mp4", metadata=video.provenance.to_json())

Underneath is a generator, `steps`, that yields after every piece of work: a progress bar, a preview, cancelling and saving the state
are all a `for` loop over it. A pipeline makes one video at a time.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hunyuan_video import __version__, checkpoint, plan, progressive, weights
from hunyuan_video.assembly import Models, assemble, check, dtype_of
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint import identity
from hunyuan_video.checkpoint.lora import read_adapter
from hunyuan_video.checkpoint.seeing import load_encoders
from hunyuan_video.clips import read_clip
from hunyuan_video.config import (
    OFFICIAL_NEGATIVE_PROMPT,
    FullSampling,
    Given,
    LoadKey,
    Runtime,
    Sampling,
    check_guidance,
    check_solver,
    why_not_continued,
)
from hunyuan_video.denoising import Course, Denoiser, course
from hunyuan_video.distributed import cost, watch
from hunyuan_video.distributed.once import once
from hunyuan_video.distributed.pipefusion import one_step_old
from hunyuan_video.distributed.started import local_size
from hunyuan_video.distributed.tiles import over_ranks
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import CPU, Degrees, World, placed, resolve_device, world_of_group
from hunyuan_video.files import sha256
from hunyuan_video.given import begins_with, shown
from hunyuan_video.kernels import choice, fused, table
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.memory import available_memory
from hunyuan_video.models.text import TextEncoder, TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, Posterior, VAEConfig, check_pixels
from hunyuan_video.models.vision import SeeingTextEncoder
from hunyuan_video.pictures import picture_of
from hunyuan_video.request import Adapted, Adapter, Clip, Held, Keyframe, Picture, Provenance, Request
from hunyuan_video.sampling import sigmas_of
from hunyuan_video.transforms.lean import chunk_size, is_lean, use_pieces
from hunyuan_video.transforms.offload import on_device
from hunyuan_video.transforms.tiling import Run, TileSizes, decode_pieces, num_pieces, tiled_encode
from hunyuan_video.video import to_frames, to_tensor

log = logging.getLogger(__name__)

Result = TypeVar("Result")
MARGIN = 10  # seconds in which a rank that is hung is found and named, before the backend gives up without a name


@dataclass(frozen=True)
class Step:
    """One piece of work done: `step` of `total` in `stage`. Latents are there from the first denoising step on, all frames at the last one
    of decoding, and `new_frames` at each of these. `estimate` are the finished latents as a denoising step sees them, for a preview.

    Latents are what the next step begins with. With `Runtime.progressive` they are smaller before the early steps; the finished ones, and
    the estimate, never are."""

    stage: plan.Stage
    step: int
    total: int
    provenance: Provenance
    latents: Float[Tensor, "1 C t h w"] | None = None
    frames: UInt8[np.ndarray, "F H2 W2 3"] | None = None
    new_frames: UInt8[np.ndarray, "_ H2 W2 3"] | None = None
    estimate: Float[Tensor, "1 C T H W"] | None = None
    computed: int = 0
    """while it denoises: evaluations of the transformer so far, of all branches of guidance that this rank computes"""


@dataclass(frozen=True)
class Video:
    """Frames, the latents they were decoded from, and everything needed to make them again."""

    frames: UInt8[np.ndarray, "F H2 W2 3"] = field(repr=False)
    latents: Float[Tensor, "1 C T H W"] = field(repr=False)
    provenance: Provenance


class BusyError(RuntimeError):
    """A pipeline was asked for a second video while it makes one."""


@torch.no_grad()
def encode(vae: CausalVAE, frames: UInt8[np.ndarray, "F H2 W2 3"], tiling: bool = True, run: Run = map) -> Float[Tensor, "1 C T H W"]:
    """Frames to latents as the transformer knows them (scaled): the mean of the VAE's posterior. `run` computes the tiles."""
    weight = next(vae.parameters())
    x = to_tensor(frames)[None].to(weight.device, weight.dtype)
    if tiling:
        posterior = tiled_encode(vae, x, TileSizes.of(vae.config), run)
    else:
        check_pixels(vae.config, x)
        posterior = Posterior.from_moments(*run(vae.moments, [x]))
    return (posterior.mode().float() - vae.config.shift_factor) * vae.config.scaling_factor


@torch.no_grad()
def _next_frames(pieces: Iterator[Float[Tensor, "1 3 _ H2 W2"]]) -> UInt8[np.ndarray, "_ H2 W2 3"] | None:
    """Of the next piece, which is let go before one more is made; None after the last."""
    piece = next(pieces, None)
    return None if piece is None else to_frames(piece[0])


@dataclass(frozen=True)
class Origin:
    """Which weights a pipeline has, and what they were made for."""

    model: str = ""
    """their identity"""
    transformer: str = ""
    """what its file or folder is called"""
    load_key: LoadKey = "module"
    adapters: tuple[Adapter, ...] = ()
    adapted: tuple[Adapted, ...] = ()
    """the same by their content"""
    sampling: FullSampling = FullSampling()  # noqa: RUF009 (frozen)
    negative_prompt: str = OFFICIAL_NEGATIVE_PROMPT
    given: tuple[Given, ...] = ("first",)
    """what of a video's frames they were trained to be given"""
    trained: int = FullSampling.num_frames
    """frames of the longest videos that they were trained on"""


def degrees_of(
    runtime: Runtime, sampling: FullSampling, config: TransformerConfig, device: torch.device = CPU, ranks: int | None = None
) -> Degrees:
    """How so many ranks, or those of the process group, share a video: as the runtime says, or as suits them and its tokens, on such a
    device. Where guidance has two branches, each half of the ranks computes one, if there are halves.

    Raises:
        ValueError: as `cost.degrees_of`.
    """
    here = dist.is_initialized()
    ranks = ranks or (dist.get_world_size() if here else 1)
    shape = VAEConfig().latent_shape(sampling.num_frames, sampling.height, sampling.width)
    tokens = math.prod(config.grid(shape))
    card = cost.nearest(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else cost.H100
    degrees, wire = cost.degrees_of(runtime, ranks, 2 if sampling.cfg_scale > 1 else 1, config, tokens, card), Wire(runtime.wire)
    if degrees.ulysses * degrees.ring == 1 or not here or dist.get_rank() > 0:
        return degrees
    if runtime.ulysses_degree is None and runtime.ring_degree is None:
        log.info("%s", cost.why(degrees.ranks, config.num_heads, tokens, card, wire))
    if runtime.ulysses_degree not in (None, degrees.ulysses):
        log.info(
            "There are %d attention heads for %d Ulysses ranks: Ulysses %d and ring %d instead.",
            *(config.num_heads, runtime.ulysses_degree, degrees.ulysses, degrees.ring),
        )
    if wire is Wire.FP8:
        exact, short = (cost.Step(tokens, degrees=degrees, wire=kind, config=config).sent(0).total for kind in Wire)
        log.info("Ranks send %.2f of the bytes, in 8 bits; the video is not quite the exact one (docs/many-gpus.md).", short / exact)
    return degrees


class HunyuanVideo:
    """The loaded model. `dtype` is what the transformer computes in, if that is not its weights'. Models that are not on the device move
    there while they work, all but `streamed`, what `assemble` made come and go by itself. Where the runtime's attention is "auto", the
    transformer gets the kernel that is the fastest at each video's length; else it keeps its own.

    In a `world` of several ranks all must make the same calls, and all get the same video: the one that the first rank asks for. The text
    encoders may be on the first one alone."""

    def __init__(
        self,
        text_encoder: TextEncoder | None,
        transformer: HunyuanVideoTransformer,
        vae: CausalVAE,
        *,
        device: torch.device | str = "cpu",
        world: World | None = None,
        dtype: torch.dtype | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        origin: Origin = Origin(),
        streamed: Sequence[Tensor] = (),
    ):
        self.text_encoder = text_encoder
        self.transformer = transformer
        self.vae = vae
        self.device = placed(torch.device(device))
        self.world = world or World(self.device)
        self.dtype = dtype or next(transformer.parameters()).dtype
        self.runtime = runtime
        self.origin = origin
        self._making = threading.Lock()
        if runtime.offload == "auto":
            raise ValueError(
                "offload is 'auto', which HunyuanVideo.load settles before it reads weights; give models none, models or blocks."
            )
        if runtime.offload == "blocks" and not streamed:
            raise ValueError(
                "offload is 'blocks', but none of these models' tensors come and go; HunyuanVideo.load makes them, or give what `assemble` "
                "returned as streamed."
            )
        self.streamed = streamed

    @classmethod
    def load(
        cls,
        root: str | Path | weights.Weights | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        sampling: Sampling | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> HunyuanVideo:
        """Load the weights at `root`; without one, the official weights in ./ckpts, or else the embedded miniature. `adapters` act in all
        videos that it makes.

        `sampling` is the largest video that will be made, for a runtime with `offload="auto"` (default, and where it is open: what the
        weights were made for); and for a CPU with little memory, where it may be refused.
        Where a default process group is there, all its ranks must load the same together: rank 0 reads for all, and they share each
        video's tokens, and where guidance has two branches, these.

        Raises:
            FileNotFoundError: weights are missing; says where they were looked for and how to get them.
            ValueError: a file is damaged or does not fit; or the runtime asks for a device that is not there, has too little memory, or
                does not multiply in 8 bits.
        """
        device = resolve_device(runtime.device)
        if wrong := [adapter for adapter in adapters if not isinstance(adapter, Adapter)]:
            raise ValueError(f"adapters hold {wrong[0]!r}; each must be an Adapter, such as Adapter.parse('style.safetensors:0.8').")
        once(lambda: [adapter.check_file() for adapter in adapters])
        found = root if isinstance(root, weights.Weights) else weights.find_or_embedded(None if root is None else Path(root))
        text_stays, transformer_stays = (checkpoint.stays_in_file(part, device) for part in (found.text_encoder, found.transformer))
        sizes = checkpoint.fitting_sizes(found)
        watch.be_patient(runtime.timeout)
        largest = None if sampling is None else sampling.over(found.sampling())
        degrees = degrees_of(runtime, largest or found.sampling(), sizes, device)
        world = world_of_group(device, degrees, timedelta(seconds=runtime.timeout + MARGIN))
        dtype = dtype_of("transformer", runtime, device, large=weights.is_large(found.transformer))
        in_file = text_stays or transformer_stays
        check(runtime, world, num_heads=sizes.num_heads, head_dim=sizes.head_dim, dtype=dtype, in_file=in_file)
        loras = once(lambda: [read_adapter(adapter, sizes) for adapter in adapters])
        digests = once(lambda: [sha256(weights.lora_file(adapter.path)) for adapter in adapters])
        adapted = tuple(Adapted(adapter.path.name, digest, adapter.strengths) for adapter, digest in zip(adapters, digests, strict=True))
        if runtime.offload == "auto":
            shared = replace(runtime, ulysses_degree=degrees.ulysses, ring_degree=degrees.ring)
            planned = plan.Parts.of(found), largest or found.sampling(), shared, device, loras, world.size, local_size()
            runtime = replace(runtime, offload=once(lambda: plan.choose(*planned)).offload)
        room = None  # for weights that stay in their files
        if in_file:
            needs, free = plan.on_cpu(plan.Parts.of(found), largest, runtime, loras), available_memory(device)
            log.info("%s", needs.sentence(free))
            room = needs.room(free)
        home = device if runtime.offload == "none" else CPU
        vae_dtype = dtype_of("vae", runtime, device, large=weights.is_large(found.vae))
        text_dtype = dtype_of("text", runtime, device, large=weights.is_large(found.text_encoder))

        # 8 bits are made, and other stages' blocks dropped, on the CPU: the device need never hold more.
        text_encoder = None

        def load_text() -> None:
            nonlocal text_encoder
            text_encoder = load_encoders(
                found,
                how_told(sizes),
                text_dtype,
                CPU if runtime.text_fp8 else home,
                as_stored=text_stays,
                on_rank_0=runtime.shard,
            )

        if runtime.shard:
            load_text()
            transformer = checkpoint.load_on_rank_0(found.transformer, dtype, found.load_key)
        else:
            once(load_text)  # prompts are short: one rank reads them for all
            transformer = checkpoint.load_transformer(
                found.transformer,
                dtype,
                CPU if runtime.fp8 or world.stages else home,
                found.load_key,
                as_stored=transformer_stays,
                early_on_host=True,
            )
        vae = checkpoint.load_vae(found.vae, vae_dtype, home)
        models = Models(transformer, text_encoder, vae)
        streamed = assemble(models, runtime, world, loras=loras, in_file=transformer_stays, room=room)
        return cls(
            text_encoder,
            transformer,
            vae,
            device=device,
            world=world,
            runtime=runtime,
            origin=Origin(
                once(lambda: identity.of_model(found)),
                found.transformer.name,
                found.load_key,
                tuple(adapters),
                adapted,
                found.sampling(),
                OFFICIAL_NEGATIVE_PROMPT if found.negative_prompt is None else found.negative_prompt,
                found.given,
                FullSampling.num_frames if found.trained is None else found.trained[2],
            ),
            streamed=streamed,
        )

    def sharing(self, runtime: Runtime) -> HunyuanVideo:
        """A pipeline of the same models, of whose runtime only what lives for one video (`config.PER_VIDEO`) is another.

        Raises:
            ValueError: it does not go with the ranks that share a video.
        """
        check(runtime, self.world)
        return HunyuanVideo(
            self.text_encoder,
            self.transformer,
            self.vae,
            device=self.device,
            world=self.world,
            dtype=self.dtype,
            runtime=replace(runtime, offload=self.runtime.offload),
            origin=self.origin,
            streamed=self.streamed,
        )

    @property
    def defaults(self) -> FullSampling:
        """What the weights were made for, and seed 0. `replace` would keep that seed: settings by name leave it open."""
        stated = self.origin.sampling
        return stated if self.transformer.config.guidance_embed else replace(stated, guidance=None)

    @overload
    def __call__(self, prompt: Request | str, sampling: Sampling | None = None, **options: Any) -> Video: ...

    @overload
    def __call__(self, prompt: Sequence[str], sampling: Sampling | None = None, **options: Any) -> list[Video]: ...

    def __call__(self, prompt: Request | str | Sequence[str], sampling: Sampling | None = None, **options: Any) -> Video | list[Video]:
        """Make one video, or one of each prompt of a list, with a seed that is given in all. As `request` says."""
        if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes):
            return [self(each, sampling, **options) for each in prompt]
        latents, last = None, None
        for last in self.steps(prompt, sampling, **options):
            latents = last.latents if last.latents is not None else latents
        assert last is not None and last.frames is not None and latents is not None
        return Video(last.frames, latents, last.provenance)

    def request(
        self,
        prompt: Request | str,
        sampling: Sampling | None = None,
        *,
        negative_prompt: str | None = None,
        image: Picture | Image.Image | np.ndarray | str | Path | None = None,
        keyframes: Sequence[Keyframe] = (),
        video: Clip | np.ndarray | str | Path | None = None,
        **settings: Any,
    ) -> Request:
        """What a call asks for: a prompt with the adapters that are loaded, and with `sampling`, in which `settings`, such as seed=7 or
        num_steps=30, replace fields. What is left open is what the weights were made for, and a random seed.

        Raises:
            ValueError: a setting does not exist or is impossible; or more than a whole request is given.
        """
        if isinstance(prompt, Request):
            if any(given is not None for given in (sampling, negative_prompt, image, video)) or keyframes or settings:
                raise ValueError("A request and settings were given; a request has its own (dataclasses.replace gives it others).")
            return prompt
        if not isinstance(prompt, str):
            raise ValueError(f"The prompt is {prompt!r}; it must be a text, or a whole Request.")
        if not isinstance(sampling, Sampling | None):
            raise ValueError(f"sampling is {sampling!r}; it must be a Sampling; or give settings by name, such as seed=7.")
        known = [each.name for each in fields(Sampling)]
        if unknown := settings.keys() - set(known):
            word = min(unknown)
            near = get_close_matches(word, [*known, "negative_prompt", "image", "video"], n=1)
            known += ["negative_prompt", "image", "keyframes", "video"]
            raise ValueError(f"There is no setting {word}; {f'perhaps {near[0]} was meant' if near else 'there are ' + ', '.join(known)}.")
        options = replace(sampling or Sampling(), **settings)
        picture = None if image is None else picture_of(image)
        more = {"keyframes": tuple(keyframes), "video": self._clip(video, options)}
        return Request(prompt, options, negative_prompt, picture, self.origin.adapters, **more)

    def _clip(self, video: Clip | np.ndarray | str | Path | None, options: Sampling) -> Clip | None:
        """Of a file, as much as the video is to have, in its size."""
        if video is None or isinstance(video, Clip):
            return video
        if isinstance(video, np.ndarray):
            return Clip(video)
        own = self.defaults
        size = options.height or own.height, options.width or own.width
        return read_clip(video, options.num_frames, own.num_frames, size).trimmed()

    def steps(
        self, prompt: Request | str, sampling: Sampling | None = None, resume: tuple[int, Tensor] | None = None, **options: Any
    ) -> Iterator[Step]:
        """Make one video, yielding after text encoding, every denoising step, and every row of tiles that is decoded (the last one holds
        the frames). What is made is what `request` makes of the arguments. Whoever wants no more closes the generator, at any step.

        `resume` is (steps done, latents after them) of an interrupted run of the same request: the rest is then exactly what it would
        have been.

        Raises:
            BusyError: this pipeline makes another video, whose steps have not ended.
            ValueError: the request does not fit the model, and nothing has been computed then; or the latents are not finite after a step.
        """
        asked = self.request(prompt, sampling, **options)
        if not self._making.acquire(blocking=False):
            raise BusyError("This pipeline makes a video already, and makes one at a time; wait for its last step, or close its steps().")
        try:
            # One video: the first rank's request is everyone's, and it draws the seed.
            wanted, complete = self._once(lambda: (asked, self._complete(asked)))
            yield from self._steps(wanted, complete, resume)
        finally:
            self._making.release()

    @torch.no_grad()  # around every resumption of the generator, so that it never reaches into the caller's loop
    def _steps(self, request: Request, options: FullSampling, resume: tuple[int, Tensor] | None) -> Iterator[Step]:
        held = bool(request.held)
        path = self.course(options, held=held)
        if resume is not None and (needs := why_not_continued(options, self.runtime)) is not None:
            raise ValueError(f"This run cannot be continued: {needs}, which no file keeps; make the video from its first step.")
        if resume is not None and tuple(resume[1].shape) != (needed := progressive.rest(path.stages, resume[0])[0].shape):
            raise ValueError(f"The saved latents have shape {list(resume[1].shape)}; these settings need {list(needed)}.")
        patches = self.runtime.pipefusion_patches

        negative = request.negative_prompt
        if negative is None and options.cfg_scale > 1:
            negative = self.origin.negative_prompt
        prompts = [request.prompt, negative or ""] if options.cfg_scale > 1 else [request.prompt]
        features = self.encode_text(prompts, options, request.image)
        whole = bool(held) or path.windows is not None
        if whole and self.runtime.for_whole() != self.runtime:
            log.info(
                "Frames of this video have their places, so it is made without the progressive resolution of speed %r.", self.runtime.speed
            )
        runtime = self._choose_kernels(features, path.seen(max(path.stages, key=lambda stage: stage.stop - stage.start)))
        provenance = self._provenance(request, negative, options, runtime.for_whole() if whole else runtime)
        begins = begins_with(request, options, self.encode, self.transformer.config, self.origin.given)
        yield Step("encode", 1, 1, provenance)
        done, latents = resume or (0, None)
        if latents is not None and done > 0:
            yield Step("denoise", done, path.num_steps, provenance, latents)
        in_patches = nullcontext() if patches is None else one_step_old(self.transformer, patches, self.runtime.warmup_steps)
        denoiser = Denoiser(self.transformer, self.runtime, self.device, self.world, self.origin.trained)
        denoising = closing(denoiser.steps(features, path, begins, done, latents))
        with on_device(self.transformer, self.device, self.streamed, repeated=True), in_patches, denoising as denoised:
            for done, latents, near, computed in denoised:
                yield Step("denoise", done, path.num_steps, provenance, latents, estimate=near, computed=computed)
        assert latents is not None
        yield from self.decoding(latents, provenance)

    def course(self, options: FullSampling, *, held: bool = False) -> Course:
        """What the steps of a video go through, some of whose frames may be `held`."""
        return course(options, self.runtime, self.vae.config, self.transformer.config.patch_size, held=held)

    def decoding(self, latents: Float[Tensor, "1 C T H W"], made: Provenance) -> Iterator[Step]:
        """The steps that make frames of finished latents: one after every row of tiles, of which the last holds the frames."""
        kept = shown(made.sampling, self.transformer.config, self.vae.config)
        decoded = kept.latents(latents)
        pieces, total, done = [], self._num_pieces(decoded), 0
        for frames in self._decode(decoded):
            piece, done = kept.of(frames, done), done + len(frames)
            pieces.append(piece)
            if len(pieces) < total:
                yield Step("decode", len(pieces), total, made, latents, new_frames=piece)
        frames = np.concatenate(pieces)
        made = replace(made, frames_sha256=hashlib.sha256(frames.tobytes()).hexdigest())
        yield Step("decode", total, total, made, latents, frames, pieces[-1])

    def sigmas(self, options: FullSampling) -> list[float]:
        """Noise levels from 1 to 0, one more than there are steps."""
        return sigmas_of(options)

    def decode(self, latents: Float[Tensor, "1 C T H W"]) -> UInt8[np.ndarray, "F H2 W2 3"]:
        """Latents as sampled (scaled) to frames."""
        return np.concatenate(list(self._decode(latents)))

    def _decode(self, latents: Float[Tensor, "1 C T H W"]) -> Iterator[UInt8[np.ndarray, "_ H2 W2 3"]]:
        """The frames that get ready in each piece of work, of which most make none."""
        config = self.vae.config
        with on_device(self.vae, self.device):
            z = latents.to(self.device) / config.scaling_factor + config.shift_factor
            z = z.to(next(self.vae.parameters()).dtype)
            tiling, run = self.runtime.vae_tiling, self._run
            pieces = decode_pieces(self.vae, z, TileSizes.of(config), run) if tiling else run(self.vae.decode, [z])
            while (frames := _next_frames(pieces)) is not None:
                yield frames

    def _num_pieces(self, latents: Float[Tensor, "1 C T H W"]) -> int:
        return num_pieces(self.vae.config, tuple(latents.shape)) if self.runtime.vae_tiling else 1

    def encode(self, frames: UInt8[np.ndarray, "F H2 W2 3"]) -> Float[Tensor, "1 C T H W"]:
        """As `encode`, on the runtime's device."""
        with on_device(self.vae, self.device):
            return encode(self.vae, frames, self.runtime.vae_tiling, self._run)

    def reconstruct(self, frames: UInt8[np.ndarray, "F H2 W2 3"]) -> UInt8[np.ndarray, "F H2 W2 3"]:
        """Frames through the VAE and back: what is lost here, no transformer can show."""
        return self.decode(self.encode(frames))

    def encode_text(self, prompts: list[str], options: FullSampling, picture: Picture | None = None) -> TextFeatures:
        """What the transformer is told of a prompt, and of a negative one after it, beside which a language model that sees the picture is
        shown a black one."""

        def features() -> TextFeatures:
            encoder = self.text_encoder
            assert encoder is not None
            with on_device(encoder, self.device, self.streamed):
                if isinstance(encoder, SeeingTextEncoder):
                    assert picture is not None
                    shown = Image.fromarray(picture.pixels)
                    encoded = encoder.encode_seeing(prompts, [shown, Image.new("RGB", shown.size)][: len(prompts)])
                else:
                    encoded = encoder.encode(prompts, "image" if options.num_frames == 1 else "video")
                return encoded.to(CPU, self.dtype)

        # Sharded, the language model works only together.
        return (features() if self.runtime.shard else self._once(features)).to(self.device, self.dtype)

    def _once(self, work: Callable[[], Result]) -> Result:
        """What the first rank makes, for all of this pipeline's. Others' ranks may have other pipelines, as in a training."""
        return once(work) if self.world.size > 1 else work()

    @property
    def _run(self) -> Run:
        """What computes the VAE's tiles, each on one of this pipeline's ranks."""
        return over_ranks if self.world.size > 1 else map

    def _complete(self, request: Request) -> FullSampling:
        """Every open choice made, so that what is recorded is what was used. Raises a ValueError for what this pipeline cannot make."""
        sampling = request.complete(self.defaults)
        check_guidance(sampling.guidance, self.transformer.config.guidance_embed, "these weights")
        check_solver(sampling, self.runtime)
        if request.adapters != self.origin.adapters:
            asked, loaded = (
                ", ".join(adapter.path.name for adapter in all_of) or "none" for all_of in (request.adapters, self.origin.adapters)
            )
            raise ValueError(
                f"The request is for other adapters ({asked}) than this pipeline was loaded with ({loaded}); load it with these."
            )
        request.check_told(how_told(self.transformer.config))
        if request.image is None and (
            isinstance(self.text_encoder, SeeingTextEncoder) or how_told(self.transformer.config) == "latent_concat"
        ):
            raise ValueError("These weights begin every video with a picture, and none is given; give one with image.")
        if self.world.across is not None and sampling.cfg_scale == 1:
            raise ValueError(
                f"{self.world.size} ranks were to compute two branches of guidance, but cfg_scale is 1, which has one; load the pipeline "
                "with a sampling that says so, or with the degrees for all ranks."
            )
        return sampling

    def _choose_kernels(self, features: TextFeatures, shape: tuple[int, ...]) -> Runtime:
        """The transformer with its fastest pieces, and with its fastest attention for this number of tokens; and the runtime with their
        names in place of "auto" or "native"."""
        runtime, among, config = self.runtime, self.runtime.attention, self.transformer.config
        if is_lean(self.transformer):
            sizes = config.hidden_size, config.num_heads, int(config.hidden_size * config.mlp_ratio), chunk_size(self.device)
            if runtime.block_ops == "auto":
                runtime = replace(runtime, block_ops=self._once(lambda: fused.fastest(*sizes, self.dtype, self.device)))
            use_pieces(self.transformer, fused.load(runtime.block_ops, self.device))
        if among not in choice.CHOSEN:
            return runtime
        num_tokens = math.prod(config.grid(shape)) + int(features.mask.sum(dim=1).max())
        if not choice.may_choose(self.transformer):
            return runtime
        if self.world.degrees.ring > 1:
            among = "parts"
        heads, density = (config.num_heads, config.head_dim), runtime.attention_density
        kernel = self._once(lambda: choice.fastest(*heads, num_tokens, self.dtype, self.device, among, density))
        use_attention(self.transformer, table.load(kernel))
        return replace(runtime, attention=kernel)

    def _provenance(self, request: Request, negative_prompt: str | None, sampling: FullSampling, runtime: Runtime) -> Provenance:
        return Provenance(
            prompt=request.prompt,
            negative_prompt=negative_prompt,
            sampling=sampling,
            runtime=runtime,
            model=self.origin.model,
            transformer=self.origin.transformer,
            load_key=self.origin.load_key,
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            hunyuan_video=__version__,
            torch=str(torch.__version__),
            image_sha256=None if request.image is None else request.image.sha256,
            keyframes=tuple(Held(each.frame, each.shows.sha256) for each in request.keyframes),
            video_sha256=None if request.video is None else request.video.sha256,
            adapters=self.origin.adapted,
            rewriting=request.rewriting,
        )
