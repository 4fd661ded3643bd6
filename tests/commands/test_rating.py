"""The commands by which people judge a study."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from ports import free_port
from rated import study_of, vote

from hunyuan_video import cli
from hunyuan_video.evaluation.study import Source, Study
from hunyuan_video.rating.design import QUESTIONS, Design
from hunyuan_video.rating.vote import read_csv, write_csv


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """Of two systems on four prompts by two raters, who find the first one good and the second one bad."""
    path = tmp_path / "votes.csv"
    said = [
        vote(
            rater=rater,
            number=number,
            prompt=f"p{number % 4}",
            left="AB"[number // 4],
            question=question,
            answer=["yes", "no"][number // 4],
        )
        for rater in "rs"
        for number in range(8)
        for question in QUESTIONS
    ]
    write_csv(said, path)
    return path


def test_a_table_of_votes_becomes_a_report_in_markdown_and_json(votes, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert cli.main(["evaluate", "report", str(votes), "--json", str(out), "--csv", str(tmp_path / "again.csv")]) == 0
    printed = capsys.readouterr().out
    assert "| A | 100.0 (67.6–100.0) |" in printed and "| B | 0.0 (0.0–32.4) |" in printed and "| 1 |" in printed and "| 2 |" in printed
    assert json.loads(out.read_text(encoding="utf-8"))["tables"][0]["rates"]["overall"]["A"]["share"] == 1
    assert read_csv(tmp_path / "again.csv") == read_csv(votes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "report", "nothing.csv"], "nothing.csv"),
        (["evaluate", "report", "."], "holds no study"),
        (["evaluate", "rate", "."], "holds no study"),
        (["evaluate", "rate", ".", "--token", "short"], "16 to 200 letters"),
        (["evaluate", "rate", ".", "--token", "a-word-of-twenty-letters", "--open-door"], "give one of them"),
        (["evaluate", "rate", ".", "--port", "0"], "port is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_the_page_is_there_until_it_is_told_to_end(tmp_path):
    study, port = study_of(tmp_path / "study", num_prompts=2), free_port()
    command = [sys.executable, "-m", "hunyuan_video", "evaluate", "rate", str(study.folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline, answer = time.monotonic() + 60, None
            while answer is None and process.poll() is None and time.monotonic() < deadline:
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/api/task", timeout=5)
                except httpx.TransportError:
                    time.sleep(0.1)
            assert answer is not None and answer.json() == {"mode": "absolute"}
        finally:
            process.send_signal(signal.SIGINT if os.name != "nt" else signal.CTRL_C_EVENT)
        assert process.wait(30) in (0, 130)


class FakeDesk:
    blocks = ()

    def __init__(self, study: object, design: Design):
        self.mode = design.mode

    def close(self) -> None: ...


def test_another_address_needs_invitations_or_an_open_door(monkeypatch, capsys):
    served, study = [], Study(Path("s"), Source("own.txt", "0" * 64, rewritten=False, benchmark="own"), 5, ())
    monkeypatch.setattr("hunyuan_video.commands.rating.Study.read", lambda folder: study)
    monkeypatch.setattr("hunyuan_video.rating.desk.Desk", FakeDesk)
    monkeypatch.setattr("hunyuan_video.rating.page.create_page", lambda desk, invitations, is_local: (desk.mode, invitations, is_local))
    monkeypatch.setattr("hunyuan_video.apps.serve.listen_and_serve", lambda address, app, path: served.append((address, *app)))
    assert cli.main(["evaluate", "rate", "s", "--host", "0.0.0.0"]) == 2 and "--open-door" in capsys.readouterr().err
    token = "a-word-of-twenty-letters"
    assert cli.main(["evaluate", "rate", "s", "--host", "0.0.0.0", "--token", token, "--token", token[::-1]]) == 0
    assert cli.main(["evaluate", "rate", "s", "--host", "0.0.0.0", "--open-door", "--mode", "pairs"]) == 0
    assert cli.main(["evaluate", "rate", "s"]) == 0
    elsewhere, here = ("0.0.0.0", 8082), ("127.0.0.1", 8082)
    invited = (elsewhere, "absolute", (token, token[::-1]), False)
    assert served == [invited, (elsewhere, "pairs", (), False), (here, "absolute", (), True)]
