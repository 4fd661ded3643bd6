"""A file of `Results` as an answer, also a range of it: browsers ask for those to move in a video."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse

from hunyuan_video.serving.results import Results

PIECE = 2**18  # bytes


def answer(results: Results, name: str, wanted: str | None, kind: str, download: str | None) -> Response:
    """The file, or the range that the header `wanted` names; under the name `download` for whoever keeps it. Raises a 404 if it is gone,
    and a 416 for a range that it does not have."""
    try:
        size = results.size(name)
    except FileNotFoundError as error:
        raise HTTPException(404, "This file is no longer there.") from error
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if download is not None:
        headers["Content-Disposition"] = f'attachment; filename="{download}"'
    first, last, status = 0, size - 1, 200
    if (match := re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", wanted or "")) and match[0] != "bytes=-":
        first, last = (int(match[1]), int(match[2] or size)) if match[1] else (max(0, size - int(match[2])), size)
        last, status = min(last, size - 1), 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        if first > last:
            raise HTTPException(416, "The file is shorter.", {"Content-Range": f"bytes */{size}"})
    headers["Content-Length"] = str(last - first + 1)
    return StreamingResponse(_pieces(results, name, first, last), status, headers, kind)


def _pieces(results: Results, name: str, first: int, last: int) -> Iterator[bytes]:
    with results.open(name) as file:
        file.seek(first)
        while first <= last and (piece := file.read(min(PIECE, last - first + 1))):
            first += len(piece)
            yield piece
