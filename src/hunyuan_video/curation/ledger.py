"""What is known of files and clips, kept line by line as it is found, so that a process killed at any moment goes on where it was.

A ledger is a file of JSON lines. A line is on the disk as soon as it is known; half a line, as a kill leaves it, is taken off. Of two lines
with one id the last counts. Lines come in the order of the work, however many workers do it, so that the bytes are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DIGITS = 6  # of a measured number, that are kept
Record = dict[str, Any]


class Ledger:
    """One file of it; holds in memory what it says, by id."""

    def __init__(self, path: Path):
        self._path = path
        self.records = dict[str, Record]()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            for line in whole.splitlines():  # bytes: text has other ends of lines, which a caption may hold
                record = json.loads(line)
                self.records[record["id"]] = record

    def __contains__(self, id: str) -> bool:
        return id in self.records

    def __getitem__(self, id: str) -> Record:
        return self.records[id]

    def keep(self, found: Iterable[Record]) -> Iterator[Record]:
        """Write each record as it comes, and pass it on."""
        with self._path.open("ab") as file:
            for record in found:
                record = rounded(record)
                file.write(to_line(record))
                file.flush()
                os.fsync(file.fileno())
                self.records[record["id"]] = record
                yield record


def to_line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def rounded(value: Any) -> Any:
    """The same with fewer digits: a last bit is no fact about a clip."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value
