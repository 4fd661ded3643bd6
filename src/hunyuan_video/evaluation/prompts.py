"""The prompts of a study, from a file of the user's: text, the Penguin benchmark's CSV, or one of VBench's lists. Imports no torch.

Penguin's licence keeps its file out of this package. VBench's lists (Apache-2.0) are the same 946 prompts in the same order, whoever wrote
them in which words, so a line's number says what it is asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hunyuan_video.config import check_prompt, require
from hunyuan_video.evaluation.study import Prompt, Source
from hunyuan_video.evaluation.tags import tags_of
from hunyuan_video.files import read_prompts, sha256

PENGUIN = "5139a15a41498ab7"  # how the SHA-256 of PenguinVideoBenchmark.csv begins
VBENCH = {  # of commit 45e79ec, and whether they are rewritten
    "f9b50654f81ab732b9235d5bb91f0c3a4d152fac19249ce3a3a9185b2d80d8c3": False,  # all_dimension.txt
    "8996962b7d3407cbab8340e92bcc662a78636868b03900abb65e46e245694b7b": False,  # all_dimension_cn.txt
    "bb1f6c7c27390eb268ef1e25faa196169ee7dc8a30741290bdd9c30c5970d9fe": True,  # hunyuan_all_dimension.txt
}
BLOCKS: tuple[tuple[int, tuple[str, ...]], ...] = (  # of VBench's lines, in order, and what they are judged by
    (75, ("temporal_flickering",)),
    (82, ("multiple_objects",)),
    (100, ("human_action",)),
    (72, ("subject_consistency", "dynamic_degree", "motion_smoothness")),
    (79, ("object_class",)),
    (85, ("color",)),
    (90, ("appearance_style",)),
    (100, ("temporal_style",)),
    (93, ("overall_consistency", "aesthetic_quality", "imaging_quality")),
    (86, ("scene", "background_consistency")),
    (84, ("spatial_relationship",)),
)


def read(path: Path, *, rewritten: bool = False) -> tuple[Source, tuple[Prompt, ...]]:
    """Where the prompts of a file are from, and they. `rewritten` is what its owner says of a file that nobody else knows.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has no prompts, or one that cannot be one.
    """
    digest = sha256(path)
    texts = _column(path) if path.suffix.lower() == ".csv" else read_prompts(path)
    if digest in VBENCH:
        return Source(path.name, digest, VBENCH[digest], "vbench"), _numbered(
            texts, [names for count, names in BLOCKS for _ in range(count)]
        )
    source = Source(path.name, digest, rewritten, "penguin" if digest.startswith(PENGUIN) else "own")
    return source, _numbered(texts, [()] * len(texts))


def _numbered(texts: Sequence[str], dimensions: Sequence[tuple[str, ...]]) -> tuple[Prompt, ...]:
    pairs = zip(texts, dimensions, strict=True)
    return tuple(Prompt(f"{number:04}", text, tags_of(text), judged) for number, (text, judged) in enumerate(pairs))


def _column(path: Path) -> list[str]:
    """Of a CSV with a column `prompt`; a prompt in it may have several lines."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8; save it so.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV that can be read ({error}); a quotation mark that begins a field must end it, too.") from error
    require(bool(rows) and "prompt" in rows[0], f"{path} has no column called `prompt` with prompts in it.")
    texts = [row["prompt"] for row in rows]
    for number, text in enumerate(texts, start=1):
        check_prompt(text or "", f"Prompt {number} of {path}")
    return texts
