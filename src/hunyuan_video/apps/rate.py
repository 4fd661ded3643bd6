"""`hunyuan-video evaluate rate` and `report`: the page for raters in this process, and what became of it. Imports no torch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from urllib.parse import quote

from hunyuan_video.evaluation.study import Study
from hunyuan_video.files import replacing
from hunyuan_video.rating.design import Design
from hunyuan_video.rating.markdown import to_markdown
from hunyuan_video.rating.report import report_of
from hunyuan_video.rating.vote import read_csv, write_csv
from hunyuan_video.serving.security import is_own

log = logging.getLogger(__name__)


def serve_raters(address: tuple[str, int], study: Study, design: Design, invitations: tuple[str, ...]) -> None:
    """The page, until a signal says to stop; what is said meanwhile is in the study's folder.

    Raises:
        ValueError: clips are missing, or the study has been rated by another design.
        OSError: the address is taken.
    """
    from hunyuan_video.apps.serve import listen_and_serve
    from hunyuan_video.rating.desk import Desk
    from hunyuan_video.rating.page import create_page

    desk = Desk(study, design)
    try:
        log.info("%d raters see every clip %d times.", len(desk.blocks), design.ratings)
        for invitation in invitations:
            log.info("A link of invitation ends in /?invitation=%s", quote(invitation))
        listen_and_serve(address, create_page(desk, invitations, is_local=is_own(address[0])), "/")
    finally:
        desk.close()


def report(source: Path, as_json: Path | None, as_csv: Path | None) -> str:
    """What votes say, in Markdown: those of a study's folder, or of a table that was written here with `as_csv`.

    Raises:
        ValueError: there are none, or none that count.
    """
    if source.suffix.lower() == ".csv":
        votes = read_csv(source)
    else:
        from hunyuan_video.rating.desk import votes_of

        votes = votes_of(Study.open(source))
    if as_csv is not None:
        write_csv(votes, as_csv)
    found = report_of(votes)
    if as_json is not None:
        with replacing(as_json) as (temporary, _):
            temporary.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")
    return to_markdown(found)
