"""The page's form: from what stands in its fields to what is asked of the queue, and from an order or a video's file back into them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from hunyuan_video.buckets import BASE
from hunyuan_video.config import STRENGTH, FullSampling, RewriteMode, Sampling, require
from hunyuan_video.demo.offer import Offer, size_name
from hunyuan_video.request import Provenance, Rewriting
from hunyuan_video.serving.jobs import NamedLora, Order
from hunyuan_video.serving.orders import Asked


@dataclass(frozen=True)
class Form:
    """What stands in the page's fields, each named as what it becomes."""

    prompt: str
    size: str
    """width x height, as the official page has them"""
    num_frames: int
    num_steps: int
    seed: str
    """empty or -1: a random one; text, for a browser's numbers are exact only up to 2^53"""
    cfg_scale: float
    shift: float
    guidance: float
    schedule: str = "shift"
    linear_steps: str = ""
    """empty: half of the steps"""
    solver: str = "euler"
    noise: str = "cpu"
    negative_prompt: str = ""
    image: str | None = None
    """path of an uploaded picture"""
    resolution: str = ""
    """720p, 540p or 360p, in place of `size`, which then follows the picture's shape"""
    stability: str = "dynamic"
    loras: tuple[str, ...] = ()
    strengths: str = "1"
    """one for all LoRAs, or one for each, in their order, between spaces"""
    rewrite_mode: Literal["off"] | RewriteMode = "off"
    rewritten: str = ""
    """what the prompt was rewritten to, and the user made of that; empty: the prompt is as it was typed"""
    rewriter: str = ""
    """who wrote that"""
    last: str | None = None
    """path of an uploaded picture to end with"""
    clip: str | None = None
    """and of a video to be made anew"""
    strength: float = STRENGTH
    """how much of it"""
    loop: bool = False

    @classmethod
    def at(cls, sampling: Sampling, offer: Offer, prompt: str = "", negative_prompt: str = "", rewrite_mode: str = "off") -> Form:
        """As the page opens: what `sampling` leaves open is as the weights were made for, and its seed is drawn anew for each video."""
        seed = "-1" if sampling.seed is None else str(sampling.seed)
        others = {"prompt": prompt, "negative_prompt": negative_prompt, "rewrite_mode": rewrite_mode}
        return cls.of_sampling(sampling.over(offer.defaults), seed=seed, **others)

    @classmethod
    def of_sampling(cls, sampling: FullSampling, **others: Any) -> Form:
        own: dict[str, Any] = {
            "size": size_name((sampling.width, sampling.height)),
            "num_frames": sampling.num_frames,
            "num_steps": sampling.num_steps,
            "seed": str(sampling.seed),
            "cfg_scale": sampling.cfg_scale,
            "shift": sampling.shift,
            "guidance": sampling.guidance or 0.0,
            "schedule": sampling.schedule,
            "linear_steps": "" if sampling.linear_steps is None else str(sampling.linear_steps),
            "solver": sampling.solver,
            "noise": sampling.noise,
            "stability": sampling.stability,
            "strength": STRENGTH if sampling.strength is None else sampling.strength,
            "loop": sampling.loop,
        }
        return cls(**own | others)

    @classmethod
    def of_made(cls, made: Provenance, order: Order) -> Form:
        """As a video's file says that it was made. What LoRAs are called here, and what the prompt was before it was rewritten, its order
        says."""
        return cls.of_order(replace(order, prompt=made.prompt, negative_prompt=made.negative_prompt, sampling=made.sampling))

    @classmethod
    def of_order(cls, order: Order) -> Form:
        """As was ordered."""
        own: dict[str, Any] = {"prompt": order.prompt}
        if (rewriting := order.rewritten) is not None:
            own = {"prompt": rewriting.original, "rewrite_mode": rewriting.mode, "rewritten": order.prompt, "rewriter": rewriting.backend}
        return cls.of_sampling(
            order.sampling,
            negative_prompt=order.negative_prompt or "",
            loras=tuple(lora.name for lora in order.loras),
            strengths=" ".join(lora.strengths for lora in order.loras) or "1",
            **own,
        )

    def sampling(self, offer: Offer) -> Sampling:
        """With as many pixels as the video will have, if its shape follows a picture's. Raises a ValueError for what is no setting."""
        match = re.fullmatch(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", self.size)
        require(match is not None, f"The size is {self.size!r}; it must be width x height, such as {size_name(offer.sizes[0])}.")
        assert match is not None
        side = BASE.get(self.resolution)  # pyright: ignore[reportArgumentType, reportCallIssue] (none for other texts)
        return Sampling(
            height=side or int(match[2]),
            width=side or int(match[1]),
            num_frames=int(self.num_frames),
            num_steps=int(self.num_steps),
            shift=float(self.shift),
            schedule=self.schedule,  # pyright: ignore[reportArgumentType] (checked where it enters, there)
            linear_steps=self._whole("linear_steps", self.linear_steps) if self.schedule == "linear-quadratic" else None,
            solver=self.solver,  # pyright: ignore[reportArgumentType]
            noise=self.noise,  # pyright: ignore[reportArgumentType]
            guidance=float(self.guidance) if offer.embedded_guidance else None,
            cfg_scale=float(self.cfg_scale),
            stability=self.stability if offer.image_to_video else None,  # pyright: ignore[reportArgumentType]
            seed=self._whole("seed", self.seed),
            strength=None if self.clip is None else float(self.strength),
            loop=bool(self.loop),
        )

    def asked(self, offer: Offer, image: bytes | None, last: bytes | None = None, clip: bytes | None = None) -> Asked:
        """`image`, `last` and `clip` are the contents of these files. Raises a ValueError as `sampling`."""
        rewriting = None
        if self.rewrite_mode != "off" and self.rewritten.strip() not in ("", self.prompt.strip()):
            rewriting = Rewriting(self.prompt, self.rewrite_mode, self.rewriter)
        sampling, resolution = self.sampling(offer), self.resolution or None
        return Asked(
            self.prompt if rewriting is None else self.rewritten,
            sampling if resolution is None else replace(sampling, height=None, width=None),
            negative_prompt=self.negative_prompt if self.negative_prompt.strip() else None,
            image=image,
            resolution=resolution,  # pyright: ignore[reportArgumentType]
            loras=self._loras(),
            rewritten=rewriting,
            keyframes=() if last is None else ((-1, last),),
            video=clip,
        )

    @staticmethod
    def _whole(name: str, text: str) -> int | None:
        given = text.strip()
        if given in ("", "-1"):
            return None
        require(given.isascii() and given.isdigit() and len(given) < 20, f"{name} is {given!r}; it must be a whole number, or empty.")
        return int(given)

    def _loras(self) -> tuple[NamedLora, ...]:
        each = self.strengths.split() or ["1"]
        if len(each) == 1:
            each *= len(self.loras)
        require(
            len(each) == len(self.loras) or not self.loras,
            f"There are {len(each)} strengths for {len(self.loras)} LoRAs; give one for all, or one for each between spaces.",
        )
        return tuple(NamedLora(name, strengths) for name, strengths in zip(self.loras, each, strict=bool(self.loras)))


NAMES = tuple(field.name for field in fields(Form))
