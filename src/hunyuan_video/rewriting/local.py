"""A causal language model in a folder, by transformers: any that has a chat template."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from hunyuan_video.config import require
from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.rewriting.backend import BackendError, Messages

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 1024  # 120 words, and room for a model that thinks aloud


@dataclass(frozen=True)
class Local:
    """Read at the first answer, on the GPU if there is one, and kept as long as this is. Threads that ask at once are answered in turn,
    for there is memory for one answer."""

    folder: Path
    _one: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(
            (self.folder / "config.json").is_file() and any(self.folder.glob("*.safetensors")),
            f"rewrite_model is {self.folder}, which is no folder with a language model (config.json, *.safetensors); give one, or the "
            "model's name at a server with rewrite_url.",
        )

    @property
    def name(self) -> str:
        return f"local {self.folder.resolve().name}"

    def answer(self, messages: Messages) -> str:
        with self._one:
            return self._answer(messages)

    def _answer(self, messages: Messages) -> str:
        import torch

        tokenizer, model = self._loaded
        # Thinking takes minutes on a CPU and is thrown away; templates that know no such switch ignore it.
        given = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=False, return_dict=True, return_tensors="pt"
        )
        given = given.to(model.device)
        with torch.inference_mode():
            ids = model.generate(**given, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = ids[0, given["input_ids"].shape[1] :]
        if len(new) == MAX_NEW_TOKENS:
            raise BackendError(f"the answer did not end within {MAX_NEW_TOKENS} tokens", passing=False)
        return tokenizer.decode(new, skip_special_tokens=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model. No code from the folder runs, and no pickle is read."""
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        log.info("Reading the language model in %s …", self.folder)
        dtype = "auto" if torch.cuda.is_available() or multiplies_bfloat16() else torch.float32
        where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **where)
            model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype, use_safetensors=True, **where)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
            raise BackendError(f"{self.folder} cannot be read as a language model ({type(error).__name__})", passing=False) from error
        if not getattr(tokenizer, "chat_template", None):
            raise BackendError(f"{self.folder} has no chat template; give a model made for conversations", passing=False)
        return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
