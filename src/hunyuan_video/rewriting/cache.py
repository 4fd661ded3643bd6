"""Answers of language models, kept in the user's cache: the same prompt is not asked twice, and becomes the same words again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from hunyuan_video.files import replacing


@dataclass(frozen=True)
class Cache:
    """A folder of answers, each a file named by the hash of its question. It may be deleted at any time; what is damaged is not there."""

    folder: Path

    def get(self, question: list[str]) -> str | None:
        try:
            answer = json.loads(self._file(question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return answer["answer"] if isinstance(answer, dict) and isinstance(answer.get("answer"), str) else None

    def put(self, question: list[str], answer: str) -> None:
        """Best effort: a home that cannot be written to costs only time."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts are nobody else's affair
            with replacing(self._file(question)) as (temporary, _):
                temporary.write_text(json.dumps({"answer": answer}, ensure_ascii=False), encoding="utf-8")

    def _file(self, question: list[str]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(question).encode()).hexdigest()}.json"
