"""Fetch the official weights into the tree that `weights` describes, through huggingface_hub's names, login and mirrors.

Not its `hf_hub_download`: that throws away an interrupted file, which here may be 25 GB. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from hunyuan_video.apps import checksums
from hunyuan_video.files import flush
from hunyuan_video.weights import I2V, T2V

AGAIN = "run the same command again: it goes on where it stopped"
LICENCES = (
    "HunyuanVideo is under the Tencent Hunyuan Community License Agreement (https://huggingface.co/tencent/HunyuanVideo), the text "
    "encoders are under licences of their own: read them before you use the weights."
)
_TIMEOUT = 30  # seconds, for a list of files


@dataclass(frozen=True)
class Source:
    """A repository, where in the tree it goes, and which of its files are needed: patterns that each match at least one."""

    repo: str
    folder: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFile:
    """A file at the hub; `path` is where it goes, `sha256` is known of those that the hub keeps in Git LFS, all large ones; of the others
    `git_id`, the SHA-1 that Git gives them."""

    repo: str
    name: str
    revision: str
    path: str
    size: int
    sha256: str | None
    git_id: str | None

    def is_at(self, path: Path, sha256: str | None = None) -> bool:
        """Whether `path`, perhaps of known SHA-256, has the content that the hub says."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is None:
            return hashlib.sha1(b"blob %d\0" % self.size + path.read_bytes()).hexdigest() == self.git_id
        return (sha256 or checksums.sums_of(path.parent, [path.name])[path.name]) == self.sha256


def sources(fp8: bool, i2v: bool = False) -> list[Source]:
    """Of the model for text, or the one for pictures. The transformer comes last, so that an unfinished tree is never taken for a complete
    one."""
    model, repo = (I2V, "tencent/HunyuanVideo-I2V") if i2v else (T2V, "tencent/HunyuanVideo")
    transformer = f"{model}/transformers/mp_rank_00_model_states"
    tokenizer = r"\w*token\w*\.json"
    return [
        # CLIP is there in four formats.
        Source(
            "openai/clip-vit-large-patch14",
            "text_encoder_2",
            (r"config\.json", r"model\.safetensors", tokenizer, r"vocab\.json", r"merges\.txt"),
        ),
        Source(
            "xtuner/llava-llama-3-8b-v1_1-transformers",
            "text_encoder_i2v" if i2v else "text_encoder",
            (r"config\.json", r"[\w-]+\.safetensors", r"[\w-]+\.safetensors\.index\.json", tokenizer),
        ),
        Source(
            repo,
            "",
            (
                rf"{model}/vae/config\.json",
                rf"{model}/vae/pytorch_model\.pt",
                *([rf"{model}/lora/\w+\.safetensors"] if i2v else []),
                *((rf"{transformer}_fp8_map\.pt", rf"{transformer}_fp8\.pt") if fp8 else (rf"{transformer}\.pt",)),
            ),
        ),
    ]


def download(root: Path, *, fp8: bool = False, i2v: bool = False, endpoint: str | None = None) -> Iterator[str]:
    """Bring `root` up to the official tree, saying what it does. What is there already is not fetched again.

    Every file is checked against the hub's hash as it arrives, and listed in SHA256SUMS. A listed large file is not read again: that is
    what `verify` does. Nothing that is there is ever replaced.

    Raises:
        OSError: no connection, a refusal, too little disk, or a file that arrived damaged.
        FileExistsError: a file that is not the hub's is in the way.
        ValueError: the endpoint is no URL, or no hub.
    """
    endpoint = endpoint or constants.ENDPOINT
    if not re.fullmatch(r"https?://[^\s/\[\]]+(/\S*)?", endpoint):
        raise ValueError(f"HF_ENDPOINT is {endpoint!r}; it must be the address of a Hugging Face hub, such as https://huggingface.co.")
    files = [file for source in sources(fp8, i2v) for file in _list(source, endpoint)]
    sums = checksums.read(root)
    wanted = [file for file in files if not _is_there(root, file, sums)]
    total = sum(file.size for file in files)
    if not wanted:
        checksums.write(root, sums)
        yield f"{root} is complete: {len(files)} files, {_gb(total)}. Nothing was fetched."
        return
    missing = sum(file.size - _fetched(root, file) for file in wanted)
    yield f"{_gb(missing)} of {_gb(total)} are to be fetched from {endpoint} into {root}:"
    yield from (f"  {_gb(file.size):>8}  {file.path}  ({file.repo})" for file in wanted)
    yield LICENCES
    _check_disk(root, missing, total)
    with _alone(root):
        for file in wanted:
            sums[file.path] = _fetch(root, file, endpoint)
            checksums.write(root, sums)
    yield f"{root} is complete: {len(files)} files, {_gb(total)}."


def _list(source: Source, endpoint: str) -> list[RemoteFile]:
    with _sentences(source.repo, endpoint):
        try:
            info = HfApi(endpoint).model_info(source.repo, files_metadata=True, timeout=_TIMEOUT)
            siblings = info.siblings or []
            if info.sha is None or any(file.size is None or (file.lfs is None and file.blob_id is None) for file in siblings):
                raise ValueError("no sizes or hashes")
        except (ValueError, TypeError, KeyError) as error:  # a page of HTML, or JSON of another kind
            raise ValueError(
                f"{endpoint} did not answer as a Hugging Face hub does; check HF_ENDPOINT, or the login of this network."
            ) from error
    files = []
    for pattern in source.patterns:
        matches = [file for file in siblings if re.fullmatch(pattern, file.rfilename)]
        if not matches:
            raise FileNotFoundError(
                f"{source.repo} at {endpoint} has no file like {pattern}: its layout has changed; docs/weights.md says what is needed."
            )
        for file in matches:
            assert file.size is not None
            path = f"{source.folder}/{file.rfilename}" if source.folder else file.rfilename
            sha256 = file.lfs.sha256 if file.lfs else None
            files.append(RemoteFile(source.repo, file.rfilename, info.sha, path, file.size, sha256, file.blob_id))
    return files


def _is_there(root: Path, file: RemoteFile, sums: dict[str, str]) -> bool:
    """Whether the hub's file is in place. One from elsewhere is then listed in `sums`."""
    path = root / file.path
    if not path.exists():
        return False
    if not file.is_at(path, sums.get(file.path)):
        raise FileExistsError(
            f"{path} is there and is not the present file of {file.repo}; move it away, or choose another folder with --to."
        )
    if file.path not in sums:
        sums |= checksums.sums_of(root, [file.path])
    return True


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two downloads would write into the same unfinished files."""
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".download.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"Another download into {root} is running; wait for it, or choose another folder with --to.") from error
    try:
        yield
    finally:
        lock.release()


def _partial(root: Path, file: RemoteFile) -> Path:
    return root / f"{file.path}{checksums.PARTIAL}"


def _fetched(root: Path, file: RemoteFile) -> int:
    """How many bytes of a file an earlier run left. Of one without a SHA-256 they could be of another version: it starts anew."""
    partial = _partial(root, file)
    size = partial.stat().st_size if file.sha256 and partial.is_file() else 0
    return size if size <= file.size else 0


def _check_disk(root: Path, missing: int, total: int) -> None:
    place = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise OSError(
            f"{_gb(missing)} of {_gb(total)} are still to be fetched into {root}, whose disk has {_gb(free)} free; "
            "make room, or choose another folder with --to."
        )


def _fetch(root: Path, file: RemoteFile, endpoint: str) -> str:
    """Fetch one file, from where an earlier run stopped; returns its SHA-256."""
    path, partial, done = root / file.path, _partial(root, file), _fetched(root, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(file.repo, file.name, revision=file.revision, endpoint=endpoint)
    with _sentences(file.repo, endpoint), partial.open("ab" if done else "wb") as stream:
        http_get(
            url,
            stream,
            resume_size=done,
            headers=build_hf_headers() | {"Accept-Encoding": "identity"},  # servers that compress ignore where to go on
            expected_size=file.size,
            displayed_filename=file.path,
        )
    (digest,) = checksums.sums_of(partial.parent, [partial.name]).values()
    if not file.is_at(partial, digest):
        partial.unlink()
        raise OSError(
            f"{file.path} arrived damaged and was deleted (its SHA-256 is {digest[:12]}…, not the hub's); run the same command again, or "
            "set HF_ENDPOINT to another mirror."
        )
    flush(partial)
    os.replace(partial, path)
    return digest


@contextmanager
def _sentences(repo: str, endpoint: str) -> Iterator[None]:
    """What goes wrong between here and the hub, in a sentence that says what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise OSError(f"HF_HUB_OFFLINE is set, so nothing is fetched from {endpoint}; unset it.") from error
    except GatedRepoError as error:
        raise PermissionError(f"{repo} is gated: accept its terms at {endpoint}/{repo}, then log in with `hf auth login`.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise PermissionError(
                f"{endpoint} does not give out {repo} (HTTP {status}): it is private, has moved, or is not on this mirror; look at "
                f"{endpoint}/{repo}, log in with `hf auth login`, or set HF_ENDPOINT to another mirror."
            ) from error
        raise OSError(f"{endpoint} failed at {repo} (HTTP {status}); {AGAIN}.") from error
    except HTTPError as error:
        raise ConnectionError(
            f"No connection to {endpoint} ({type(error).__name__}); check the network, or set HF_ENDPOINT to a mirror, and {AGAIN}."
        ) from error
    except OSError as error:
        if error.errno is not None:  # of the disk
            raise
        raise ConnectionError(f"{endpoint} broke off while sending a file of {repo}; {AGAIN}.") from error


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
