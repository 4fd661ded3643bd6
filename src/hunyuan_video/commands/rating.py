"""The commands by which people judge a study, `evaluate rate` and `evaluate report`. They import no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hunyuan_video.commands.common import Repeatable
from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Study

LETTERS = re.compile(r"[A-Za-z0-9_-]{16,200}")  # of an invitation, which stands in an address


@dataclass(frozen=True)
class Rate:
    """Ask people, on a page, what they think of a study's clips, without telling them who made which."""

    study: tyro.conf.Positional[Path]
    """the folder that `evaluate run` made"""
    mode: Literal["absolute", "pairs"] = "absolute"
    """absolute: each clip by itself, three times yes or no; pairs: which of two is better, three times"""
    ratings: int = 3
    """raters of each clip or pair, at least"""
    per_rater: int = 40
    """clips or pairs of each rater; a tenth more are repeated or planted, and say how far the rater can be trusted"""
    leave_out_missing: bool = False
    """rate those prompts alone of which every system has a clip, for good: of some, a server may refuse to make any"""
    host: str = "127.0.0.1"
    """any other address than this machine's own needs invitations, or an open door"""
    port: int = 8082
    token: Annotated[tuple[str, ...], Repeatable] = ()
    """an invitation, of 16 letters and digits or more, and as often as there are invitations: who comes by a link with one may rate"""
    open_door: bool = False
    """let anybody rate who reaches the page"""

    def __post_init__(self) -> None:
        require(0 < self.port < 2**16, f"port is {self.port}; it must be 1 to 65535.")
        for token in self.token:
            require(
                LETTERS.fullmatch(token) is not None,
                f"An invitation has {len(token)} characters; it must have 16 to 200 letters, digits, '-' and '_': python -c "
                "'import secrets; print(secrets.token_urlsafe())'",
            )
        require(not (self.token and self.open_door), "--token lets those in who are invited, and --open-door everybody; give one of them.")

    def run(self) -> None:
        from hunyuan_video.apps.rate import serve_raters
        from hunyuan_video.rating.design import Design

        study = Study.read(self.study)
        if self.leave_out_missing:
            study = study.complete()
        design = Design(self.mode, self.ratings, self.per_rater, study.seed)
        serve_raters((self.host, self.port), study, design, self.token, open_door=self.open_door)


@dataclass(frozen=True)
class Report:
    """Say what people think: the table of shares with intervals, strengths, ties, and how far raters agree, in Markdown."""

    votes: tyro.conf.Positional[Path]
    """the folder of a study that has been rated, or a table of votes (.csv)"""
    json: Path | None = None
    """write the same here, with every number in full"""
    csv: Path | None = None
    """write all votes into this table"""

    def run(self) -> None:
        from hunyuan_video.apps.rate import report

        print(report(self.votes, self.json, self.csv), end="")
