"""`hunyuan-video evaluate rate` and `report`: the page for raters in this process, and what became of it. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Study, described
from hunyuan_video.files import replacing
from hunyuan_video.rating.design import Design
from hunyuan_video.rating.markdown import to_markdown
from hunyuan_video.rating.report import report_of
from hunyuan_video.rating.vote import read_csv, write_csv

log = logging.getLogger(__name__)


def serve_raters(address: tuple[str, int], study: Study, design: Design, invitations: tuple[str, ...], *, open_door: bool) -> None:
    """The page, until a signal says to stop; what is said meanwhile is in the study's folder.

    Raises:
        ValueError: anybody could rate, from anywhere, and `open_door` does not say so; clips are missing; or the study has been rated by
            another design.
        ImportError: the server's packages are not installed.
        OSError: the address is taken.
    """
    with _server_there():
        from hunyuan_video.apps.serve import listen_and_serve
        from hunyuan_video.rating.desk import Desk
        from hunyuan_video.rating.page import create_page
        from hunyuan_video.serving.security import is_own
    is_local = is_own(address[0])
    require(
        is_local or bool(invitations) or open_door,
        f"host is {address[0]!r}, where others reach the page; invite them with --token, or give --open-door, or stay at 127.0.0.1.",
    )
    desk = Desk(study, design)
    try:
        log.info("%d raters see every clip or pair %d times.", len(desk.blocks), design.ratings)
        for invitation in invitations:
            log.info("A link of invitation ends in /?invitation=%s", quote(invitation))
        listen_and_serve(address, create_page(desk, invitations, is_local=is_local), "/")
    finally:
        desk.close()


def report(source: Path, as_json: Path | None, as_csv: Path | None) -> str:
    """What votes say, in Markdown: those of a study's folder, or of a table that was written here with `as_csv`.

    Raises:
        ValueError: there are none, or none that count.
        ImportError: of a folder, if the server's packages are not installed.
    """
    head = ""
    if source.suffix.lower() == ".csv":
        votes = read_csv(source)
    else:
        with _server_there():
            from hunyuan_video.rating.desk import are_as_rated, votes_of
        study = Study.read(source)
        votes, head = votes_of(study), f"# What raters say\n\n{described(study)}\n\n"
        if not are_as_rated(study):
            log.warning("Clips of %s have been changed or deleted since they were rated; what is said is of those that were there.", source)
    if as_csv is not None:
        write_csv(votes, as_csv)
    found = report_of(votes)
    if as_json is not None:
        with replacing(as_json) as (temporary, _):
            temporary.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")
    return head + to_markdown(found)


@contextlib.contextmanager
def _server_there() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"Rating needs {error.name}, which is not installed: pip install 'hunyuan-video[serve]'.") from error
