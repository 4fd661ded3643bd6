"""Files of a job over HTTP: whole, in part (Range), or not again (ETag). Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from hunyuan_video.serving.errors import ApiError
from hunyuan_video.serving.jobs import Job
from hunyuan_video.serving.results import Results

_PIECE = 2**18  # bytes
_TYPES = {
    ".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg",
}  # fmt: skip


def send_content(request: Request, job: Job, variant: str, results: Results) -> Response:
    """A file of a job, under a name of ours.

    Raises:
        ApiError: 404 if it is not there (any more), 409 if it is not there yet, 416 for a range outside of it.
    """
    name = _name_of(job, variant)
    try:
        size = results.size(name)
    except FileNotFoundError as error:
        raise ApiError(404, f"The {variant} of {job.id} is no longer there.") from error
    suffix = PurePosixPath(name).suffix
    headers = {
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{job.id}{"" if variant == "video" else f"-{variant}"}{suffix}"',
        "content-type": _TYPES.get(suffix, "application/octet-stream"),
    }
    if not job.is_over:  # a preview, which may become another one while it is sent
        return Response(_whole(results, name), headers=headers)
    etag = f'"{name}"'
    headers |= {"etag": etag, "cache-control": "private, no-cache"}
    if etag in re.split(r",\s*", request.headers.get("if-none-match", "").replace("W/", "")):
        return Response(status_code=304, headers=headers)
    part = _range(request, etag, size)
    start, end = part or (0, size)
    if part is not None:  # also if it is all of it, by which players learn that they may ask for parts
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_pieces(results, name, start, end), status, headers)


def _whole(results: Results, name: str) -> bytes:
    with results.open(name) as file:
        return file.read()


def _name_of(job: Job, variant: str) -> str:
    if variant in job.files:
        return job.files[variant]
    if job.status == "failed":
        raise ApiError(404, f"{job.id} has failed ({job.error_code}), so it has no {variant}.")
    if job.status == "completed":
        raise ApiError(404, f"{job.id} has no {variant}; it has {', '.join(sorted(job.files)) or 'no files'}.")
    raise ApiError(409, f"{job.id} is {job.status}, so it has no {variant} yet; ask again when it is completed.", code="not_ready")


def _range(request: Request, etag: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that are asked for, if it is one run of them of this very file; what is no range is passed over, as HTTP has it."""
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", "").strip())
    if asked is None or not (asked[1] or asked[2]) or request.headers.get("if-range", etag) != etag:
        return None
    if not asked[1]:
        start, end = max(0, size - int(asked[2])), size
    else:
        start, end = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
        if asked[2] and int(asked[2]) < start:
            return None
    if start >= end:
        said = f"The range begins behind the end: there are {size} bytes."
        raise ApiError(416, said, headers={"content-range": f"bytes */{size}"})
    return start, end


def _pieces(results: Results, name: str, start: int, end: int) -> Iterator[bytes]:
    with results.open(name) as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_PIECE, end - start))):
            start += len(piece)
            yield piece
