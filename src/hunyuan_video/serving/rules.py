"""What an operator allows, and what the weights are: all that is needed to say yes or no to an order. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hunyuan_video.config import FullSampling, Limits, RewriteMode, require
from hunyuan_video.request import Request
from hunyuan_video.rewriting import Rewritten, rewrite

# For strangers: twice the longest official video, and room for twice its steps.
FOR_STRANGERS = Limits(max_side=2048, max_frames=257, max_pixels=2 * 129 * 720 * 1280, max_steps=100)
MAX_BODY = 2**25  # bytes of a request: a picture of 20 MiB in base64 and what goes with it
MAX_PICTURE_PIXELS = 2**25
LOCAL = "local"  # whose the jobs are where no key is asked for


@dataclass(frozen=True)
class Rules:
    """`check` refuses what the weights cannot honour, as `Weights.check` does."""

    model: str
    """what clients call the weights"""
    defaults: FullSampling
    """what they were made for"""
    check: Callable[[Request], None]
    image_to_video: bool = False
    overlap: int = 1
    """frames of a video that what comes after it begins with"""
    limits: Limits = FOR_STRANGERS
    keys: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each key, in hexadecimal, by its name, which is whose the jobs are; empty: no key is asked for"""
    loras: Path | None = None
    """folder whose LoRA files clients may ask for by name"""
    webhook_hosts: tuple[str, ...] = ()
    """to which webhooks may go: names or addresses, without port"""
    webhook_secret: str | None = None
    """whsec_ and base64, by which receivers know that a webhook is ours"""
    rewriter: Callable[[str, RewriteMode], Rewritten] = rewrite
    """who rewrites prompts"""
    rewrite: RewriteMode | None = None
    """how, where a client does not say"""
    max_queue: int = 100
    """jobs of each owner that may wait"""
    max_body: int = MAX_BODY
    max_picture_pixels: int = MAX_PICTURE_PIXELS
    fps: int = 24

    def __post_init__(self) -> None:
        require(bool(self.model.strip()), "model is empty; give the weights a name.")
        require(self.max_queue >= 1, f"max_queue is {self.max_queue}; it must be 1 or more.")
        require(self.loras is None or self.loras.is_dir(), f"loras is {self.loras}, which is no folder; give one with LoRA files.")
        for name, digest in self.keys.items():
            require(re.fullmatch("[0-9a-f]{64}", digest) is not None, f"The key {name!r} is not kept as its SHA-256.")
        require(
            not self.webhook_hosts or self.webhook_secret is not None,
            "Webhooks may go to hosts, but there is no secret to sign them with; set HUNYUAN_VIDEO_WEBHOOK_SECRET.",
        )
        if self.webhook_secret is not None:
            _check_secret(self.webhook_secret)
        self.limits.check(self.defaults)  # else nobody could leave anything open

    def check_webhook(self, url: str) -> None:
        """Refuse a webhook to a host that the operator has not listed, or without encryption on a network. Raises a ValueError."""
        require(bool(self.webhook_hosts), "webhook_url is given, but this server sends no webhooks; leave it out.")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError(f"webhook_url is no URL ({error}); give one such as https://{self.webhook_hosts[0]}/videos.") from error
        clean = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= 2000
        require(clean and parts.username is None, "webhook_url has characters or a password that do not belong into it; give a plain URL.")
        require(host in self.webhook_hosts, f"webhook_url goes to {host!r}; this server sends webhooks to {', '.join(self.webhook_hosts)}.")
        secure = parts.scheme == "https" or (parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1"))
        require(secure, f"webhook_url begins with {parts.scheme}:; it must begin with https:.")


def _check_secret(secret: str) -> None:
    try:
        long_enough = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) >= 24
    except binascii.Error:
        long_enough = False
    require(
        secret.startswith("whsec_") and long_enough,
        "The webhook secret must be whsec_ and 24 bytes or more in base64: python -c "
        "'import base64, secrets; print(\"whsec_\" + base64.b64encode(secrets.token_bytes(32)).decode())'",
    )
