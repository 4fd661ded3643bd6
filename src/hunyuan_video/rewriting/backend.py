"""What a language model must be able to do here."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

Messages = list[dict[str, Any]]
"""A conversation: of each message the `role` (system, user or assistant) and the `content`: a text, or OpenAI's parts for one that sees."""

MAX_ANSWER_BYTES = 2**20  # a thousand times what is asked for


class BackendError(Exception):
    """Why there is no answer, as the end of a sentence. `passing` says whether asking again may help."""

    def __init__(self, reason: str, *, passing: bool):
        super().__init__(reason)
        self.passing = passing


@runtime_checkable
class LanguageModel(Protocol):
    @property
    def name(self) -> str:
        """Its kind and name, to be recorded in files that travel: no address."""
        ...

    def answer(self, messages: Messages) -> str:
        """The next message. Raises a BackendError if there is none."""
        ...
