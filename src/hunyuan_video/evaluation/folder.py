"""Another system's clips, in a folder: which one is of which prompt. Imports no torch.

They are called by the prompts' numbers from 0, as in `0012.mp4`; or by the prompts, as they are, as VBench has it (`a cat-0.mp4`, of which
the one with the smallest number counts, for nothing is picked), or as `hunyuan-video generate` calls its files.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Prompt, Study
from hunyuan_video.files import MAX_NAME_BYTES, replacing, sha256, words_of

log = logging.getLogger(__name__)

_OURS = re.compile(r"_seed\d+(?:_.*)?$")  # what our own names end in
_TAKE = re.compile(r"-(\d+)$")
LONGEST = 60  # bytes of a prompt by which it is known: our names may be cut short of what else they say


def match(folder: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Of each prompt's id the clip.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: prompts have no clip, or more than one; says how many.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder of clips.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mp4" and not path.name.startswith("."))
    require(bool(files), f"{folder} holds no .mp4 files.")
    found = _by_number(files, prompts) if all(path.stem.isdecimal() for path in files) else _by_words(files, prompts)
    several = [prompt for prompt in prompts if len(found.get(prompt.id, ())) > 1]
    missing = [prompt for prompt in prompts if not found.get(prompt.id)]
    for wrong, what in ((several, "have more than one clip"), (missing, "have no clip")):
        if wrong:
            name = words_of(wrong[0].prompt, MAX_NAME_BYTES).replace("_", " ")
            example = f"such as {wrong[0].id} ({name})"
            raise ValueError(f"{len(wrong)} of {len(prompts)} prompts {what} in {folder}, {example}; {HOW_TO_CALL}.")
    return {id: paths[0] for id, paths in found.items()}


def warn_of_others(clips: Mapping[str, Path], prompts: Sequence[Prompt]) -> None:
    """Of our own files, which say what they were made from, whether that is another prompt: numbers may be another list's."""
    wrong = [(clips[prompt.id], said) for prompt in prompts if (said := _said(clips[prompt.id])) and prompt.prompt not in said]
    if wrong:
        path, said = wrong[0]
        log.warning("%d clips were made from other prompts than theirs, such as %s, from %r.", len(wrong), path, said[0])


def _said(path: Path) -> tuple[str, ...]:
    """The prompt that a file says it was made from, and what that was before it was rewritten."""
    from hunyuan_video.video import read_metadata  # with torch

    try:
        metadata = read_metadata(path)
        rewriting = metadata.get("rewriting") or {}
        return tuple(filter(None, (metadata["prompt"], rewriting.get("original"))))
    except (ValueError, KeyError, AttributeError):
        return ()


HOW_TO_CALL = "call each clip by its prompt's number from 0 (0000.mp4), or by its prompt"


def digest(clips: Mapping[str, Path]) -> str:
    """Of all clips and which prompt each is of."""
    return hashlib.sha256("".join(f"{id} {sha256(path)}\n" for id, path in sorted(clips.items())).encode()).hexdigest()


def bring(study: Study, name: str, clips: Mapping[str, Path]) -> None:
    """Copies of what is not there yet."""
    for prompt in study.missing(name):
        to = study.clip(name, prompt.id)
        to.parent.mkdir(parents=True, exist_ok=True)
        with replacing(to) as (temporary, _):
            shutil.copyfile(clips[prompt.id], temporary)


def _by_number(files: Iterable[Path], prompts: Sequence[Prompt]) -> dict[str, list[Path]]:
    found = defaultdict[int, list[Path]](list)
    for path in files:
        found[int(path.stem)].append(path)
    return {prompt.id: found.get(number, []) for number, prompt in enumerate(prompts)}


def _by_words(files: Iterable[Path], prompts: Sequence[Prompt]) -> dict[str, list[Path]]:
    """Equal prompts share a clip. Others that are cut to the same words have none, for these do not say whose it is."""
    meant = defaultdict[str, set[str]](set)
    for prompt in prompts:
        meant[_words(prompt.prompt)].add(prompt.prompt)
    asked = {words for words, texts in meant.items() if len(texts) == 1}
    whole, takes = defaultdict[str, list[Path]](list), defaultdict[str, list[tuple[int, Path]]](list)
    for path in files:
        stem = _OURS.sub("", path.stem)
        words, take = _words(stem), _TAKE.search(stem)
        first = None if take is None else _words(stem[: take.start()])
        if take is not None and first in asked and (first == words or words not in asked):  # a long prompt is cut before the number
            takes[first].append((int(take[1]), path))
        else:
            whole[words].append(path)
    named = {words: whole.get(words) or _first_take(takes[words]) for words in asked}
    return {prompt.id: named.get(_words(prompt.prompt), []) for prompt in prompts}


def _first_take(takes: list[tuple[int, Path]]) -> list[Path]:
    """All of that number, of which there should be one."""
    first = min((number for number, _ in takes), default=0)
    return [path for number, path in takes if number == first]


def _words(text: str) -> str:
    return words_of(text, LONGEST).casefold()
