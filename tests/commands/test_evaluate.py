"""`hunyuan-video evaluate run` and `score`, from the command line to the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from media_files import read_video
from rendered_cameras import film, path

from hunyuan_video import cli, pipeline
from hunyuan_video.evaluation.endpoint import Endpoint
from hunyuan_video.evaluation.study import Prompt, Study
from hunyuan_video.request import Provenance
from hunyuan_video.video import read_metadata, save_video

SMALL = "height=32,width=48,num_frames=5,num_steps=1"


@pytest.fixture
def prompts(tmp_path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("A cat, the camera pans right.\nA dog.\n", encoding="utf-8")
    return file


@pytest.fixture
def filmed(tmp_path) -> Path:
    """Another system's clips."""
    folder = tmp_path / "filmed"
    folder.mkdir()
    for number, kind in enumerate(("pan-right", "tilt-left")):
        save_video(film(path(kind, number, 5), number), folder / f"{number}.mp4", metadata=None)
    return folder


def run(prompts: Path, out: Path, *systems: str, seed: int = 3) -> int:
    return cli.main(["evaluate", "run", str(prompts), "--out", str(out), "--seed", str(seed), "--systems", *systems])


def test_weights_make_one_clip_a_prompt_and_none_again(prompts, official_tree, tmp_path, monkeypatch):
    out, system = tmp_path / "study", f"tiny=weights:{official_tree},{SMALL}"
    assert run(prompts, out, system) == 0
    study = Study.read(out)
    made = [Provenance.from_json(read_metadata(clip), clip) for clip in (study.clip("tiny", prompt.id) for prompt in study.prompts)]
    assert [(each.prompt, each.sampling.seed, each.sampling.num_steps) for each in made] == [
        ("A cat, the camera pans right.", 3, 1),
        ("A dog.", 4, 1),
    ]
    study.clip("tiny", "0001").unlink()
    loaded, load = [], pipeline.HunyuanVideo.load
    monkeypatch.setattr(pipeline.HunyuanVideo, "load", lambda *given: loaded.append(given) or load(*given))
    assert run(prompts, out, system) == run(prompts, out, system) == 0
    assert study.missing("tiny") == () and len(loaded) == 1


def test_other_settings_of_the_same_name_are_refused_before_anything_is_made(prompts, official_tree, tmp_path, capsys):
    out = tmp_path / "study"
    assert run(prompts, out, f"tiny=weights:{official_tree},{SMALL}") == 0
    assert run(prompts, out, f"tiny=weights:{official_tree},{SMALL},shift=3") == 2
    assert "has a system tiny that is made otherwise (sampling.shift is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "why"),
    [
        ("a=weights:embedded,seed=1", "System a: seed is given; a study has one"),
        ("a=weights:embedded,steps=1", "There is no option --steps; perhaps --num-steps was meant"),
        ("a=weights:none", "none"),
        ("a=folder:.,size=1", "System a: a folder has no options"),
        ("a=endpoint:127.0.0.1", "is no address"),
    ],
)
def test_what_is_no_system_is_refused(system, why, prompts, tmp_path, capsys):
    assert run(prompts, tmp_path / "study", system) == 2
    assert why in capsys.readouterr().err and not (tmp_path / "study" / "study.json").exists()


def test_a_folder_of_clips_is_brought_and_measured_once(prompts, filmed, tmp_path, capsys, monkeypatch):
    out = tmp_path / "study"
    assert run(prompts, out, f"filmed=folder:{filmed}") == 0
    assert np.array_equal(read_video(out / "clips/filmed/0001.mp4")[0], read_video(filmed / "1.mp4")[0])
    assert cli.main(["evaluate", "score", str(out)]) == 0
    table = capsys.readouterr().out
    assert "2 prompts of prompts.txt (own, not rewritten)" in table and "| filmed | 2 | 2 | 1 of 1 | none |" in table
    assert "| camera:right | 1 | 1 of 1 have it |" in table
    assert ("BRISQUE" in table) == (find_spec("brisque") is not None)
    assert (out / "scores.md").read_text(encoding="utf-8").strip() in table
    lines = (out / "scores.jsonl").read_text(encoding="utf-8")
    monkeypatch.setattr("hunyuan_video.apps.score.read", lambda path: pytest.fail("measured again"))
    assert cli.main(["evaluate", "score", str(out)]) == 0 and (out / "scores.jsonl").read_text(encoding="utf-8") == lines


def test_a_damaged_clip_is_a_fault_and_ends_nothing(prompts, filmed, tmp_path, capsys, caplog):
    out = tmp_path / "study"
    assert run(prompts, out, f"filmed=folder:{filmed}", f"again=folder:{filmed}") == 0
    clip = Study.read(out).clip("filmed", "0000")
    clip.write_bytes(clip.read_bytes()[:400])
    assert cli.main(["evaluate", "score", str(out), "--reference", "again"]) == 0
    table = capsys.readouterr().out
    assert "| filmed | 2 | 1 | 0 of 1 | 1 unreadable |" in table and "| again | 2 | 2 | 1 of 1 | none |" in table
    assert f"{clip} cannot be read" in caplog.text
    assert cli.main(["evaluate", "score", str(out), "--reference", "filmed"]) == 0  # beside what cannot be read nothing is near or far
    assert "| again | 2 | 2 | 1 of 1 | none |" in capsys.readouterr().out


def test_what_one_system_lacks_keeps_no_other_waiting(prompts, filmed, tmp_path, capsys, monkeypatch):
    def refused(self: Endpoint, study: Study, name: str, server: object) -> Iterator[tuple[Prompt, str]]:
        yield from ((prompt, "it is forbidden") for prompt in study.missing(name))

    monkeypatch.setattr("hunyuan_video.evaluation.endpoint.fetch", partial(refused, None))
    out = tmp_path / "study"
    assert run(prompts, out, "paid=endpoint:http://127.0.0.1:1", f"filmed=folder:{filmed}") == 2
    assert "2 of 2 clips of paid were not made" in capsys.readouterr().err
    assert Study.read(out).missing("filmed") == ()


@pytest.mark.parametrize("seed", [-1, 2**63 - 1])
def test_a_seed_that_some_prompt_cannot_have_is_refused_before_the_study_is_there(prompts, filmed, tmp_path, capsys, seed):
    assert run(prompts, tmp_path / "study", f"a=folder:{filmed}", seed=seed) == 2
    assert f"seed is {seed}; it must be 0 to {2**63 - 2}" in capsys.readouterr().err and not (tmp_path / "study").exists()


def test_a_reference_and_networks_stand_beside(prompts, filmed, tmp_path, capsys):
    out = tmp_path / "study"
    (tmp_path / "n.py").write_text("def ten(x):\n    return x.flatten(1).mean(dim=1) * 0 + 7\n", encoding="utf-8")
    (tmp_path / "n.toml").write_text('[aesthetic_quality]\nnetwork = "n.py:ten"\n', encoding="utf-8")
    (tmp_path / "v.json").write_text('{"scene": [0.5, []]}', encoding="utf-8")
    assert run(prompts, out, f"a=folder:{filmed}", f"b=folder:{filmed}") == 0
    more = ["--reference", "b", "--backbones", str(tmp_path / "n.toml"), "--vbench", f"a={tmp_path / 'v.json'}"]
    assert cli.main(["evaluate", "score", str(out), *more]) == 0
    row = next(row for row in json.loads((out / "scores.json").read_text(encoding="utf-8"))[0]["rows"] if row["system"] == "a")
    assert row["aesthetic_quality"] == pytest.approx(0.7) and row["VBench scene"] == 0.5
    assert (
        row["PSNR to b"] is None
        and row["SSIM to b"] == pytest.approx(1)
        and row["random-feature Fréchet to b"] == pytest.approx(0, abs=1e-6)
    )


def test_each_network_has_its_own_numbers_however_often_they_change(prompts, filmed, tmp_path):
    out = tmp_path / "study"
    assert run(prompts, out, f"a=folder:{filmed}") == 0
    for name, value in (("one", 3), ("two", 8)):
        (tmp_path / f"{name}.py").write_text(f"def net(x):\n    return x.flatten(1).mean(dim=1) * 0 + {value}\n", encoding="utf-8")
        (tmp_path / f"{name}.toml").write_text(f'[aesthetic_quality]\nnetwork = "{name}.py:net"\n', encoding="utf-8")
    found = []
    for more in (["--backbones", str(tmp_path / f"{name}.toml")] if name else [] for name in ("one", "two", "one", None)):
        assert cli.main(["evaluate", "score", str(out), *more]) == 0
        (row,) = json.loads((out / "scores.json").read_text(encoding="utf-8"))[0]["rows"]
        found.append(row.get("aesthetic_quality"))
    assert found == [pytest.approx(0.3), pytest.approx(0.8), pytest.approx(0.3), None]
    assert (out / "scores.jsonl").read_text(encoding="utf-8").count('"aesthetic_quality": ') == 4  # of two clips, by each once


def test_a_system_that_is_not_in_the_study_is_refused(prompts, filmed, tmp_path, capsys):
    assert run(prompts, tmp_path / "study", f"a=folder:{filmed}") == 0
    assert cli.main(["evaluate", "score", str(tmp_path / "study"), "--system", "c"]) == 2
    assert "has no system 'c'; it has a." in capsys.readouterr().err
