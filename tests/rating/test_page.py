"""The page over HTTP: what raters get, and what they never do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from fastapi.testclient import TestClient
from rated import SYSTEMS, study_of

from hunyuan_video.apps.rate import report
from hunyuan_video.containers import open_container
from hunyuan_video.evaluation.study import Study
from hunyuan_video.rating import design as designs
from hunyuan_video.rating import store
from hunyuan_video.rating.design import Design, planted
from hunyuan_video.rating.desk import Desk, votes_of
from hunyuan_video.rating.material import material_of
from hunyuan_video.rating.page import STATIC, create_page
from hunyuan_video.rating.report import report_of

INVITATION = "an-invitation-of-24-char"
ANSWERS = {"absolute": "yes", "pairs": "tie"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Whose clips tests must not change, encoded for raters already."""
    study = study_of(tmp_path_factory.mktemp("study") / "study-secretfolder")
    material_of(study).encode(planted(Design(seed=study.seed), [prompt.id for prompt in study.prompts]))
    return study


@pytest.fixture
def fresh(study: Study, tmp_path: Path) -> Study:
    """The same, not rated yet."""
    for each in study.folder.iterdir():
        (tmp_path / each.name).symlink_to(each)
    return Study.read(tmp_path)


@pytest.fixture
def desk(fresh: Study) -> Iterator[Desk]:
    desk = Desk(fresh, Design(seed=fresh.seed))
    yield desk
    desk.close()


@pytest.fixture(params=["absolute", "pairs"])
def either(request: pytest.FixtureRequest, fresh: Study) -> Iterator[Desk]:
    """A desk of each way to rate."""
    desk = Desk(fresh, Design(request.param, seed=fresh.seed))
    yield desk
    desk.close()


def visit(desk: Desk, **more: object) -> TestClient:
    return TestClient(create_page(desk, **more), base_url="http://localhost")  # pyright: ignore[reportArgumentType]


def joined(desk: Desk) -> TestClient:
    client = visit(desk)
    assert client.post("/api/join", json={}).status_code == 200
    return client


def answer(client: TestClient, task: dict, said: str | None = None) -> dict:
    body = {"answers": dict.fromkeys(("text", "motion", "visual"), said or ANSWERS[task["mode"]]), "latency_ms": 2500}
    response = client.post(f"/api/task/{task['number']}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_no_byte_that_a_rater_gets_tells_who_made_a_clip(either):
    """All answers to all that a rater can ask for, with headers and videos: no system's name, no weights', nothing of the files' own."""
    client, got = visit(either), []

    def ask(method: str, path: str, **more: object) -> bytes:
        response = client.request(method, path, **more)  # pyright: ignore[reportArgumentType]
        got.append(str(response.headers).encode() + response.content)
        return response.content

    for path in ("/", "/page.css", "/page.js", "/words.js", "/health", "/nothing", "/api/task", "/media/0.mp4", "/openapi.json"):
        ask("GET", path)
    ask("POST", "/api/join", json={})
    task = client.get("/api/task").json()
    while "clips" in task:
        ask("GET", "/api/task")
        for clip in task["clips"]:
            assert ask("GET", f"/media/{clip}.mp4")[4:8] == b"ftyp"
            ask("GET", f"/media/{clip}.mp4", headers={"range": "bytes=0-99"})
            ask("GET", f"/media/{clip}.mp4", headers={"range": "bytes=9999999-"})
        ask("POST", f"/api/task/{task['number']}", json={"answers": {}, "latency_ms": 0})
        task = answer(client, task)
    ask("GET", "/api/task")
    ask("GET", "/api/task/999")
    everything = b"".join(got).lower()
    secrets = [
        *SYSTEMS,
        "spoiled",
        "plant",
        "repeat",
        "identity-of",
        "frames_sha256",
        "num_steps",
        "lavf",
        str(either.material.folder.name),
    ]
    secrets += [*either.prompts, "secretfolder", "sqlite"]
    assert [secret for secret in secrets if secret.encode() in everything] == []


def test_the_scan_would_find_what_the_studys_own_files_tell(study):
    content = study.clip(SYSTEMS[0], "prompt-0000").read_bytes()
    assert b"frames_sha256" in content and b"num_steps" in content


def test_all_clips_are_of_one_size_rate_and_length(desk):
    seen = set()
    for path in desk.material.folder.rglob("*.mp4"):
        with open_container(path) as container:
            stream = container.streams.video[0]
            seen.add((stream.height, stream.width, stream.average_rate, stream.frames, stream.codec_context.name, str(container.metadata)))
    assert len(seen) == 1


def test_a_clip_comes_in_parts_to_its_rater_alone_and_says_nothing_of_its_file(desk):
    client, other = joined(desk), joined(desk)
    (name, *_) = client.get("/api/task").json()["clips"]
    whole = client.get(f"/media/{name}.mp4")
    part = client.get(f"/media/{name}.mp4", headers={"range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == whole.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert whole.headers["etag"] == f'"{name}"' and whole.headers["last-modified"].endswith("1970 00:00:00 GMT")
    assert other.get(f"/media/{name}.mp4").status_code == 404


def test_a_rater_goes_through_all_and_what_was_said_is_reported(either):
    client = joined(either)
    task = client.get("/api/task").json()
    while "clips" in task:
        task = answer(client, task)
    assert task["next"] == task["total"] + 1
    votes = votes_of(Study.read(either.material.folder.parents[1]))
    assert len(votes) == 3 * task["total"] and {vote.latency_ms for vote in votes} == {2500}
    assert {vote.seed for vote in votes} == {7, 8, 9, 10} and ("camera:still",) in {vote.tags for vote in votes}
    made = {(vote.left, vote.left_made) for vote in votes if vote.left in SYSTEMS}
    assert len({digest for _, digest in made}) == len(made) == 2
    with pytest.raises(ValueError, match="1 are left out"):  # who said yes to what is spoiled, or could not tell it
        report_of(votes)


def test_a_studys_report_says_what_was_compared_and_whether_that_is_still_there(desk, fresh, caplog):
    client = joined(desk)
    task = client.get("/api/task").json()
    while "clips" in task:
        task = answer(client, task, "yes" if task["number"] % 7 else "no")
    votes = [replace(vote, truth=vote.answer) if vote.kind == "plant" else vote for vote in votes_of(fresh)]
    with patch("hunyuan_video.rating.desk.votes_of", lambda study: votes):
        said = report(fresh.folder, None, None)
        assert "4 prompts of prompts.txt (own, not rewritten), with seeds from 7 on." in said and caplog.text == ""
        assert f"| {SYSTEMS[0]} | weights |" in said and "## Each clip by itself" in said
        path = fresh.clip(SYSTEMS[0], fresh.prompts[0].id)
        clip = path.read_bytes()
        try:
            path.unlink()
            report(fresh.folder, None, None)
        finally:
            path.write_bytes(clip)
    assert "have been changed or deleted since they were rated" in caplog.text


def test_a_rater_goes_on_where_they_were_after_a_restart(fresh):
    design = Design(seed=fresh.seed)
    first = Desk(fresh, design)
    client = joined(first)
    before = answer(client, client.get("/api/task").json())
    first.close()
    second = Desk(fresh, design)
    again = visit(second)
    again.cookies.update(client.cookies)
    assert again.get("/api/task").json() == before
    second.close()


def test_two_pages_of_one_host_know_their_rater_each(fresh):
    """A browser has one jar of cookies for all ports of a host."""
    desks = [Desk(fresh, Design(mode, seed=fresh.seed)) for mode in ("absolute", "pairs")]
    first, second = (visit(desk) for desk in desks)
    first.post("/api/join", json={})
    seen = answer(first, first.get("/api/task").json())
    second.cookies = first.cookies
    second.post("/api/join", json={})
    other = second.get("/api/task").json()
    first.cookies = second.cookies
    assert first.get("/api/task").json() == seen and second.get("/api/task").json() == other != seen
    assert len(first.cookies) == 2
    for desk in desks:
        desk.close()


def test_a_link_of_ones_own_goes_on_on_another_device(desk):
    client = joined(desk)
    before = answer(client, client.get("/api/task").json())
    phone = visit(desk)
    response = phone.get(f"/{before['link']}", follow_redirects=False)
    assert response.status_code == 303 and response.headers["location"] == "../"
    assert phone.get("/api/task").json() == before


def test_who_goes_back_sees_what_they_said_and_may_change_it(either):
    client = joined(either)
    first = client.get("/api/task").json()
    answer(client, first)
    seen = client.get("/api/task/1").json()
    assert seen["answers"] == dict.fromkeys(("text", "motion", "visual"), ANSWERS[first["mode"]]) and seen["clips"] == first["clips"]
    other = {"absolute": "no", "pairs": "bad"}[first["mode"]]
    assert answer(client, seen, other)["number"] == 2
    assert client.get("/api/task/1").json()["answers"]["text"] == other


@pytest.mark.parametrize(
    "body",
    [
        {"answers": {"text": "yes"}, "latency_ms": 1},
        {"answers": {"text": "yes", "motion": "yes", "visual": "perhaps"}, "latency_ms": 1},
        {"answers": {"text": "left", "motion": "yes", "visual": "yes"}, "latency_ms": -1},
        {"answers": {"text": "yes", "motion": "yes", "visual": "yes"}},
        {"answers": {"text": "yes", "motion": "yes", "visual": "yes"}, "latency_ms": "\ud800"},
        {"answers": {"text": "\ud800", "motion": "yes", "visual": "yes"}, "latency_ms": 1},
        {"answers": {}, "latency_ms": 1, "\ud800": 1},
    ],
)
def test_what_answers_nothing_is_refused_and_not_kept(desk, body):
    client = joined(desk)
    refused = client.post("/api/task/1", content=json.dumps(body), headers={"content-type": "application/json"})
    assert refused.status_code == 400 and refused.json()["error"]["message"].endswith(".")
    assert desk.store.rows() == []


def test_of_a_crowd_that_does_not_finish_nobody_else_is_let_in(desk, monkeypatch):
    monkeypatch.setattr(store, "MOST_UNFINISHED", 2)
    one, _ = joined(desk), joined(desk)
    refused = visit(desk).post("/api/join", json={})
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "too_many_raters"
    task = one.get("/api/task").json()
    while "clips" in task:
        task = answer(one, task)
    joined(desk)


def test_nobody_answers_or_sees_what_they_have_not_come_to(desk):
    client = joined(desk)
    task = client.get("/api/task").json()
    body = {"answers": dict.fromkeys(("text", "motion", "visual"), ANSWERS[task["mode"]]), "latency_ms": 1}
    assert client.post("/api/task/2", json=body).status_code == 404 and client.get("/api/task/2").status_code == 404


def test_a_stranger_is_told_what_it_is_about_and_is_a_rater_once_they_begin(desk):
    client = visit(desk)
    assert client.get("/api/task").json() == {"mode": "absolute"} and client.get("/api/task/1").status_code == 401
    first = client.post("/api/join", json={}).json()
    assert client.post("/api/join", json={}).json() == first == client.get("/api/task").json()


def test_with_invitations_nobody_else_comes_in(desk):
    client = visit(desk, invitations=(INVITATION,), is_local=False)
    assert client.post("/api/join", json={"invitation": "another-invitation-24-ch"}).status_code == 403
    assert client.post("/api/join", json={}).json()["error"]["code"] == "not_invited"
    half = client.post("/api/join", content=rb'{"invitation": "\ud800"}', headers={"content-type": "application/json"})
    assert half.status_code == 403
    assert client.post("/api/join", json={"invitation": INVITATION}).status_code == 200 and "clips" in client.get("/api/task").json()


def test_another_name_of_this_machine_is_refused_where_the_door_is_open(desk):
    assert visit(desk).get("/api/task", headers={"host": "evil.example"}).status_code == 421


def test_the_page_may_ask_only_its_own_server(desk):
    policy = visit(desk).get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy


def test_the_page_says_the_same_things_in_both_languages():
    words = (STATIC / "words.js").read_text(encoding="utf-8").partition("export const KEYS")[0]
    english, chinese = (re.findall(r"(\w+): ", part) for part in words.split("\n  zh: {"))
    assert english[english.index("other") :] == chinese and len(chinese) > 30


def test_a_study_whose_clips_have_changed_is_not_gone_on_with(tmp_path):
    study = study_of(tmp_path / "study", num_prompts=2)
    Desk(study, Design()).close()
    study.clip(SYSTEMS[0], "prompt-0000").write_bytes(study.clip(SYSTEMS[1], "prompt-0000").read_bytes())
    with pytest.raises(ValueError, match="has been rated with clips"):
        Desk(study, Design())


def test_a_study_whose_blocks_are_drawn_otherwise_is_not_gone_on_with(fresh, monkeypatch):
    Desk(fresh, Design(seed=fresh.seed)).close()
    Desk(fresh, Design(seed=fresh.seed)).close()
    drawn = designs.blocks
    monkeypatch.setattr(designs, "blocks", lambda *given: drawn(*given)[::-1])
    with pytest.raises(ValueError, match="has been rated with blocks"):
        Desk(fresh, Design(seed=fresh.seed))


def test_clips_for_raters_are_the_same_after_an_interruption(tmp_path):
    study = study_of(tmp_path / "study", num_prompts=3)
    plants = planted(Design(seed=study.seed), [prompt.id for prompt in study.prompts])
    (material := material_of(study)).encode(plants)
    folder = material.folder
    made = {path: path.read_bytes() for path in folder.rglob("*.mp4")}
    for count in (1, 2):
        for prompt in list(plants)[-count:]:
            (folder / "spoiled" / f"{prompt}.mp4").unlink()
        material_of(study).encode(plants)
        assert {path: path.read_bytes() for path in folder.rglob("*.mp4")} == made


def test_a_study_that_is_refused_has_encoded_nothing(fresh):
    Desk(fresh, Design(seed=fresh.seed)).close()
    before = set((fresh.folder / "rating").rglob("*"))
    path = fresh.clip(SYSTEMS[0], fresh.prompts[0].id)
    content = path.resolve().read_bytes()
    try:
        path.write_bytes(fresh.clip(SYSTEMS[0], fresh.prompts[1].id).read_bytes())
        with pytest.raises(ValueError, match="has been rated with clips"):
            Desk(fresh, Design(seed=fresh.seed))
    finally:
        path.write_bytes(content)
    assert set((fresh.folder / "rating").rglob("*")) == before


def test_saying_the_same_again_adds_nothing_and_minds_are_not_changed_for_ever(desk, monkeypatch):
    client = joined(desk)
    task = client.get("/api/task").json()
    answer(client, task)
    answer(client, task)
    assert len(desk.store.rows()) == 3
    monkeypatch.setattr(store, "MOST_CHANGES", 2)
    for said in ("no", "yes"):
        answer(client, task, said)
    body = {"answers": dict.fromkeys(("text", "motion", "visual"), "no"), "latency_ms": 1}
    refused = client.post("/api/task/1", json=body)
    assert refused.status_code == 400 and "changed your mind 2 times" in refused.json()["error"]["message"]
    assert len(desk.store.rows()) == 9


def test_prompts_without_a_clip_are_left_out_if_asked(tmp_path):
    study = study_of(tmp_path / "study", num_prompts=3)
    study.clip(SYSTEMS[1], study.prompts[1].id).unlink()
    with pytest.raises(ValueError, match="or --leave-out-missing does without these prompts"):
        material_of(study)
    assert {prompt for prompt, _ in material_of(study.complete()).sources} == {study.prompts[0].id, study.prompts[2].id}


def test_a_study_that_lacks_a_clip_says_whose(tmp_path):
    study = study_of(tmp_path / "study", num_prompts=2)
    study.clip(SYSTEMS[1], "prompt-0001").unlink()
    with pytest.raises(ValueError, match=f"{SYSTEMS[1]} has no clip of 1 of 2 prompts"):
        Desk(study, Design())


def test_a_study_that_nobody_has_rated_says_so(fresh):
    with pytest.raises(ValueError, match="evaluate rate"):
        votes_of(fresh)
