"""Who rewrites prompts: one setting for the command, the server and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hunyuan_video.config import check_types, require
from hunyuan_video.rewriting.backend import LanguageModel
from hunyuan_video.rewriting.local import Local
from hunyuan_video.rewriting.remote import Remote


@dataclass(frozen=True)
class Rewriter:
    """Who rewrites prompts. Without either, rules and a lexicon, which need nothing."""

    rewrite_url: str | None = None
    """of a server that speaks OpenAI's protocol, such as http://localhost:11434/v1; its key is read from $HUNYUAN_VIDEO_REWRITE_KEY"""
    rewrite_model: str | None = None
    """the model's name there; without a URL, a folder with a language model for transformers (docs/rewriting.md)"""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.rewrite_url is None or self.rewrite_model is not None,
            f"rewrite_url is given without rewrite_model; name the model to ask there ({self.rewrite_url}/models lists them).",
        )

    def backend(self, key: str | None = None) -> LanguageModel | None:
        """The language model, not yet read or asked; None for the rules.

        Raises:
            ValueError: the address is none, or the folder holds no language model.
        """
        if self.rewrite_model is None:
            return None
        return Local(Path(self.rewrite_model)) if self.rewrite_url is None else Remote(self.rewrite_url, self.rewrite_model, key)
