"""The command of the web page, `demo`. It imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from hunyuan_video.apps.rewrite import rewriting_by
from hunyuan_video.commands.common import Computes, Flat, Loads, Places, Which, rewrite_key
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.commands.serving import Worker, keys_of
from hunyuan_video.config import Limits, LoadKey, Place, RewriteMode, Runtime, Sampling, require
from hunyuan_video.leash import is_held
from hunyuan_video.rewriting.rewriter import Rewriter
from hunyuan_video.serving.rules import FOR_STRANGERS


@dataclass(frozen=True)
class Demo(Computes):
    """Make videos in a web browser."""

    host: str = field(default_factory=lambda: os.environ.get("SERVER_NAME", "127.0.0.1"))
    """any other address than this machine's own needs keys; $SERVER_NAME may say another one, too"""
    port: int = field(default_factory=lambda: int(os.environ.get("SERVER_PORT", "8081")))
    """or what $SERVER_PORT says"""
    place: Places = field(default_factory=Place)
    workers: int = 1
    """how many processes make videos here; 0: none, they run elsewhere, or are those of `hunyuan-video serve` with the same data"""
    gpus: int = 1
    """of each worker: so many make one video together"""
    api_key_file: Path | None = None
    """a file with lines NAME=KEY, of those who may log in (default: $HUNYUAN_VIDEO_API_KEYS, such lines)"""
    loras: Path | None = None
    """folder of LoRA files that may be chosen"""
    max_queue: int = 100
    """how many videos of each key may wait"""
    prompt: str = ""
    """what stands in the prompt's field at the beginning"""
    negative_prompt: str = ""
    """and in that of the negative one"""
    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    rewrite: RewriteMode | None = None
    """how prompts are rewritten, if whoever asks chooses nothing else: normal, to be understood, also from Chinese; master, to look their
    best"""
    rewriter: Annotated[Rewriter, Flat] = field(default_factory=Rewriter)
    limits: Annotated[Limits, Flat] = FOR_STRANGERS
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.workers >= 0, f"workers is {self.workers}; it must be 0 or more.")
        require(self.gpus >= 1, f"gpus is {self.gpus}; it must be 1 or more.")
        require(0 < self.port < 2**16, f"port is {self.port}; it must be 1 to 65535.")
        require(self.max_queue >= 1, f"max_queue is {self.max_queue}; it must be 1 or more.")

    def run(self) -> None:
        found = self.which.find(self.load_key)
        rewriter = rewriting_by(self.rewriter, rewrite_key())
        self.limits.check(self.sampling.over(found.sampling()))

        from hunyuan_video.apps import serve

        rules = serve.rules_of(found, self.host, keys_of(self.api_key_file), limits=self.limits, loras=self.loras, max_queue=self.max_queue)
        address = (self.host, self.port)
        if self.workers > 0:
            shares = serve.shares_of(self.workers, self.gpus, self.runtime.device)
            worker = Worker(self.place, self.gpus, self.loras, None, self.runtime, self.which, self.load_key)
            page = ["demo", *flags_of(replace(self, workers=0))]
            return serve.serve_with_workers(address, self.place, page, ["worker", *flags_of(worker)], shares)

        from hunyuan_video.apps.demo import serve_page
        from hunyuan_video.demo.desk import Desk
        from hunyuan_video.demo.estimate import Planner
        from hunyuan_video.demo.form import Form
        from hunyuan_video.demo.offer import Offer

        offer = Offer.of(found)
        # Of workers that were started with this page, and so are on this machine, it is known what memory they have.
        planner = Planner(found, self.runtime, self.gpus) if is_held() else None
        desk = partial(Desk, rules=rules, offer=offer, rewriter=rewriter, planner=planner)
        serve_page(address, self.place, desk, Form.at(self.sampling, offer, self.prompt, self.negative_prompt, self.rewrite or "off"))
