"""One prompt in, one prompt out, whatever the backend: asked, read, checked, once more if need be, else as it was typed."""

from __future__ import annotations

from dataclasses import dataclass

from hunyuan_video.config import RewriteMode, check_prompt
from hunyuan_video.request import Rewriting
from hunyuan_video.rewriting import offline
from hunyuan_video.rewriting.backend import BackendError, LanguageModel, Messages
from hunyuan_video.rewriting.cache import Cache
from hunyuan_video.rewriting.checks import problems
from hunyuan_video.rewriting.instructions import complaint, instructions
from hunyuan_video.rewriting.parsing import prompt_in


@dataclass(frozen=True)
class Rewritten:
    """`prompt` is what to make a video of, and `original` what was typed: the same, if it could not be rewritten."""

    prompt: str
    original: str
    mode: RewriteMode
    backend: str
    notice: str | None = None
    """a sentence for the user about what did not go as asked"""

    @property
    def record(self) -> Rewriting | None:
        """For the request, and so for the file."""
        return None if self.prompt == self.original else Rewriting(self.original, self.mode, self.backend)


def rewrite(prompt: str, mode: RewriteMode = "normal", backend: LanguageModel | None = None, cache: Cache | None = None) -> Rewritten:
    """A prompt in the words that the model was trained on; by rules and a lexicon, which need nothing, if there is no `backend`.

    A backend that fails, twice if asking again may help, leaves the prompt as it is, and the notice says why. Its good answers are kept in
    the `cache`, if there is one.

    Raises:
        ValueError: `prompt` can be none: it is empty, or far too long.
    """
    check_prompt(prompt)
    if backend is None:
        text, notice = offline.rewrite(prompt, mode)
        return Rewritten(text, prompt, mode, "offline", notice)
    told = instructions(mode)
    question = [told, backend.name, prompt]
    text = cache.get(question) if cache is not None else None
    if text is None or problems(prompt, text):
        try:
            text = _ask(prompt, told, backend)
        except BackendError as error:
            return Rewritten(prompt, prompt, mode, backend.name, f"The prompt stays as it is: {error}.")
        if cache is not None:
            cache.put(question, text)
    return Rewritten(text, prompt, mode, backend.name)


def _ask(prompt: str, told: str, backend: LanguageModel) -> str:
    """A good answer, the second time at the latest. Raises a BackendError if there is none."""
    messages: Messages = [{"role": "system", "content": told}, {"role": "user", "content": prompt}]
    wrong: list[str] = []
    for is_last in (False, True):
        try:
            text = prompt_in(backend.answer(messages))
        except BackendError as error:
            if is_last or not error.passing:
                raise
            continue
        if not (wrong := problems(prompt, text)):
            return text
        messages = [*messages[:2], {"role": "assistant", "content": text}, {"role": "user", "content": complaint(wrong)}]
    raise BackendError(f"the answer of the language model cannot be used ({'; '.join(wrong)})", passing=False)
