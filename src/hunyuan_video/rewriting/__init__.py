"""Prompts in the words that the model was trained on: by a language model behind a URL or in a folder, or by rules that need nothing.

Imports no torch.
"""

from hunyuan_video.rewriting.cache import Cache
from hunyuan_video.rewriting.rewrite import Rewritten, rewrite
from hunyuan_video.rewriting.rewriter import Rewriter

__all__ = ["Cache", "Rewriter", "Rewritten", "rewrite"]
