"""Rewriting without a language model: Chinese by lexicon and grammar, and what the prompt leaves open in plain words. Always the same."""

from __future__ import annotations

import re

from hunyuan_video.config import MAX_PROMPT_CHARACTERS, RewriteMode
from hunyuan_video.rewriting import style
from hunyuan_video.rewriting.checks import MAX_TOKENS, estimated_tokens, is_english, quotes
from hunyuan_video.rewriting.chinese import has_chinese, translate

_ADDRESS = re.compile(r"\w+://")
MAX_CHARACTERS = 500  # of Chinese: more than the model reads once it is English


def rewrite(prompt: str, mode: RewriteMode) -> tuple[str, str | None]:
    """The prompt, and a notice of what could not be translated. English words stay as they are, all of them and in their order."""
    text, notice = " ".join(prompt.split()), None
    if not any(sign.isalpha() for sign in text):
        return prompt, "The prompt stays as it is: there is no word in it."
    if has_chinese(_without_quotes(text)):
        read, rest = text[:MAX_CHARACTERS], text[MAX_CHARACTERS:]
        text, unknown = translate(read)
        if unknown or rest:
            words = ", ".join([*dict.fromkeys(unknown), *([f"all after {MAX_CHARACTERS} characters"] if rest else [])])
            notice = f"Not translated, and kept as they are: {words}. A language model could (docs/rewriting.md)."
        text += rest
        if len(text) > MAX_PROMPT_CHARACTERS - 100:  # room for what is added
            return prompt, "The prompt stays as it is: it is far longer than what the model reads."
    elif not is_english(_without_quotes(text)):
        return prompt, "The prompt stays as it is: without a language model, only Chinese can be translated (docs/rewriting.md)."
    return _with_style(text, mode), notice


def _without_quotes(text: str) -> str:
    for quoted in quotes(text):
        text = text.replace(quoted, "")
    return text


def _with_style(text: str, mode: RewriteMode) -> str:
    """With what the text leaves open behind it, if the model would still read that."""
    if not _ADDRESS.match(text):
        text = text[:1].upper() + text[1:]
    text = text.rstrip(" ,;")
    added = [style.closing(text)] if mode == "normal" else [f"{sentence}." for sentence in style.direction(text)]
    whole = " ".join([text if text[-1:] in tuple(".!?…\"”'’") else f"{text}.", *filter(None, added)])
    return whole if estimated_tokens(whole) <= MAX_TOKENS else text
