"""Rewrites prompts and says what they became: behind `hunyuan-video rewrite` and `generate --rewrite`. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from hunyuan_video.config import RewriteMode
from hunyuan_video.files import user_cache
from hunyuan_video.rewriting import Cache, Rewriter, Rewritten, rewrite

log = logging.getLogger(__name__)


def rewriting_by(rewriter: Rewriter, key: str | None) -> Callable[[str, RewriteMode], Rewritten]:
    """What rewrites one prompt after another, with the user's cache; the log has what did not go as asked. A local language model stays in
    memory for as long as this does."""
    folder, backend = user_cache(), rewriter.backend(key)
    cache = None if folder is None else Cache(folder / "rewrites")

    def rewritten(prompt: str, mode: RewriteMode) -> Rewritten:
        made = rewrite(prompt, mode, backend, cache)
        if made.notice:
            log.warning("%s", made.notice)
        return made

    return rewritten


def rewrite_all(prompts: Iterable[str], mode: RewriteMode, rewriter: Rewriter, key: str | None) -> dict[str, Rewritten]:
    """Each prompt once. A local language model is gone when this returns."""
    rewritten = rewriting_by(rewriter, key)
    return {prompt: rewritten(prompt, mode) for prompt in dict.fromkeys(prompts)}


def rewrite_and_say(prompts: Iterable[str], mode: RewriteMode, rewriter: Rewriter, key: str | None) -> dict[str, Rewritten]:
    """`rewrite_all`; the log also has what each prompt became."""
    become = rewrite_all(prompts, mode, rewriter, key)
    for rewritten in become.values():
        if rewritten.record is not None:
            log.info("Rewritten (%s, %s): %s", mode, rewritten.backend, rewritten.prompt)
    return become
