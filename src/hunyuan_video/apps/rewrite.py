"""Rewrites prompts and says what they became: behind `hunyuan-video rewrite` and `generate --rewrite`. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hunyuan_video.config import RewriteMode
from hunyuan_video.files import user_cache
from hunyuan_video.rewriting import Cache, Rewritten, rewrite
from hunyuan_video.rewriting.backend import LanguageModel

log = logging.getLogger(__name__)


def rewrite_one(prompt: str, mode: RewriteMode, backend: LanguageModel | None) -> Rewritten:
    """With the user's cache; the log has the notice, if there is one."""
    folder = user_cache()
    rewritten = rewrite(prompt, mode, backend, None if folder is None else Cache(folder / "rewrites"))
    if rewritten.notice:
        log.warning("%s", rewritten.notice)
    return rewritten


def rewrite_all(prompts: Iterable[str], mode: RewriteMode, backend: LanguageModel | None) -> dict[str, Rewritten]:
    """Each prompt once; the log says what it became."""
    become: dict[str, Rewritten] = {}
    for prompt in dict.fromkeys(prompts):
        become[prompt] = rewrite_one(prompt, mode, backend)
        if become[prompt].record is not None:
            log.info("Rewritten (%s, %s): %s", mode, become[prompt].backend, become[prompt].prompt)
    return become
