"""What a report says of given votes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rated import vote

from hunyuan_video.rating.design import QUESTIONS
from hunyuan_video.rating.intervals import wilson
from hunyuan_video.rating.judged import Judged
from hunyuan_video.rating.markdown import to_markdown
from hunyuan_video.rating.report import report_of
from hunyuan_video.rating.strengths import chances
from hunyuan_video.rating.vote import COLUMNS, Vote, read_csv, write_csv


def judgement(system: str, prompt: int, answers: tuple[bool, bool, bool], **more: object) -> list[Vote]:
    said = {"left": system, "prompt": f"p{prompt}", "number": prompt + 1} | more
    return [vote(question=question, answer="yes" if yes else "no", **said) for question, yes in zip(QUESTIONS, answers, strict=True)]


# The report's table of 1,533 prompts: how many clips passed in text, motion and visual quality, and in all three.
PUBLISHED = {"HunyuanVideo": (947, 1019, 1467, 633), "CNTopA": (960, 946, 1466, 578), "CNTopC": (742, 724, 1476, 377)}


def published(system: str) -> list[Vote]:
    """The votes by a rule: first the clips that pass all; then those without visual quality, which have the other two; then those that
    have it and one of the others, as many as are left of each."""
    text, motion, visual, overall = PUBLISHED[system]
    bad = 1533 - visual
    rows = [(True, True, True)] * overall + [(True, True, False)] * bad
    rows += [(True, False, True)] * (text - overall - bad) + [(False, True, True)] * (motion - overall - bad)
    rows += [(False, False, True)] * (1533 - len(rows))
    return [said for prompt, row in enumerate(rows) for said in judgement(system, prompt, row, rater=f"{system}-{prompt % 60}")]


@pytest.mark.parametrize(
    ("system", "row"),
    [
        ("HunyuanVideo", "| 61.8 (59.3–64.2) | 66.5 (64.1–68.8) | 95.7 (94.6–96.6) | 41.3 (38.9–43.8) | 1 |"),
        ("CNTopA", "| 62.6 (60.2–65.0) | 61.7 (59.2–64.1) | 95.6 (94.5–96.5) | 37.7 (35.3–40.2) | 1 |"),
        ("CNTopC", "| 48.4 (45.9–50.9) | 47.2 (44.7–49.7) | 96.3 (95.2–97.1) | 24.6 (22.5–26.8) | 1 |"),
    ],
)
def test_the_published_rows_come_out_of_votes_with_their_counts(system, row):
    report = report_of(published(system))
    rates = {question: report.tables[0].rates[question][system] for question in report.tables[0].rates}
    assert {rate.judgements for rate in rates.values()} == {1533}
    shown = [cell.split(" ")[0] for cell in row.split("| ")[1:5]]
    assert [f"{100 * rate.share:.1f}" for rate in rates.values()] == shown
    ends = [f"({100 * low:.1f}–{100 * high:.1f})" for low, high in (rate.wilson for rate in rates.values())]
    assert ends == [cell.split(" ")[1] for cell in row.split("| ")[1:5]]


def test_the_table_prints_the_published_numbers_and_the_published_lead_is_a_tie():
    """41.3 against 37.7: at 1,533 clips each their intervals overlap. CNTopC is behind both."""
    text = to_markdown(report_of([said for system in PUBLISHED for said in published(system)]))
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines() if line.count(" | ") == 5}
    assert [cell.split(" ")[0] for cell in rows["HunyuanVideo"][1:5]] == ["61.8", "66.5", "95.7", "41.3"]
    assert [rows[system][5] for system in PUBLISHED] == ["1–2 (tie) |", "1–2 (tie) |", "3 |"]
    lines = [line for line in text.splitlines() if line.startswith("| CNTopA – HunyuanVideo | Overall")]
    assert len(lines) == 1 and lines[0].endswith("| tie (intervals overlap) |")


def sampled(rng: np.random.Generator, chance: dict[str, float], prompts: int = 60, raters: int = 12, each: int = 3) -> list[Vote]:
    votes, number = [], 0
    for prompt in range(prompts):
        ease = rng.normal(0, 0.15)
        for system, likely in chance.items():
            for rater in rng.choice(raters, each, replace=False):
                answers = tuple(bool(yes) for yes in rng.random(3) < likely + ease)
                votes += judgement(system, prompt, answers, rater=f"r{rater}", number=(number := number + 1))
    return votes


def test_two_systems_that_are_one_are_called_a_tie():
    """In every respect, in 95 of 100 studies or more."""
    rng, ties = np.random.default_rng(11), 0
    for _ in range(20):
        report = report_of(sampled(rng, {"A": 0.7, "B": 0.7}, prompts=30), draws=200)
        ties += all(found.verdict == "tie" for found in report.tables[0].comparisons)
    assert ties >= 19


def test_a_system_that_is_much_better_is_said_to_be():
    table = report_of(sampled(np.random.default_rng(0), {"A": 0.5, "B": 0.9})).tables[0]
    assert [found.verdict for found in table.comparisons] == ["B"] * 4 and table.ranks == {"A": (2, 2), "B": (1, 1)}


def pairs_of(rng: np.random.Generator, strengths: dict[str, float], ties: float, left: float, number: int = 900) -> list[Vote]:
    names, votes = list(strengths), []
    parameters = np.array([[*strengths.values(), ties, left]])
    chance = chances(parameters, len(names))[0]
    for place in range(number):
        one, two = rng.choice(len(names), 2, replace=False)
        pair = {
            "mode": "pairs",
            "left": names[one],
            "right": names[two],
            "prompt": f"p{place // 9}",
            "rater": f"r{place % 20}",
            "number": place,
        }
        for question in QUESTIONS:
            answer = rng.choice(["left", "right", "tie"], p=chance[one * len(names) + two])
            votes.append(vote(question=question, answer="bad" if answer == "tie" and rng.random() < 0.3 else str(answer), **pair))
    return votes


def test_pairs_tell_strengths_ties_and_the_favoured_side():
    votes = pairs_of(np.random.default_rng(3), {"A": 0.8, "B": 0.0, "C": -0.8}, ties=-0.5, left=0.4)
    table = report_of(votes, draws=200).tables[0]
    assert table.pairs is not None
    for question in QUESTIONS:
        told = {-0.5: table.pairs.ties[question], 0.4: table.pairs.left[question]}
        told |= dict(zip((0.8, 0.0, -0.8), table.pairs.strengths[question].values(), strict=True))
        assert all(each.interval[0] < planted < each.interval[1] for planted, each in told.items())
    assert list(table.ranks.values()) == [(1, 1), (2, 2), (3, 3)]


def test_a_pair_with_itself_is_called_a_tie():
    rng, ties = np.random.default_rng(4), 0
    for _ in range(20):
        table = report_of(pairs_of(rng, {"A": 0.0, "B": 0.0}, ties=1.0, left=0.3, number=180), draws=100).tables[0]
        ties += all(found.verdict == "tie" for found in table.comparisons)
    assert ties >= 19


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["absolute", "pairs"])
def test_ninety_five_of_a_hundred_studies_of_a_system_beside_itself_are_ties(mode):
    rng, ties, rounds = np.random.default_rng(12), 0, 200
    for _ in range(rounds):
        votes = (
            sampled(rng, {"A": 0.7, "B": 0.7}, prompts=30)
            if mode == "absolute"
            else pairs_of(rng, {"A": 0.0, "B": 0.0}, 1.0, 0.3, number=180)
        )
        ties += all(found.verdict == "tie" for found in report_of(votes, draws=300).tables[0].comparisons)
    assert ties >= 0.95 * rounds


def test_two_votes_prove_nothing():
    pair = {"mode": "pairs", "left": "A", "right": "B"}
    votes = [
        vote(**pair, number=number, prompt=f"p{number}", question=question, answer="left") for number in (1, 2) for question in QUESTIONS
    ]
    assert {found.verdict for found in report_of(votes).tables[0].comparisons} == {"tie"}


def test_what_all_say_alike_is_still_known_by_their_number():
    few, many = (
        [said for prompt in range(number) for system in "AB" for said in judgement(system, prompt, (system == "A",) * 3, rater=system)]
        for number in (2, 40)
    )
    assert {found.verdict for found in report_of(few).tables[0].comparisons} == {"tie"}
    assert {found.verdict for found in report_of(many).tables[0].comparisons} == {"A"}


def test_a_pair_is_won_overall_by_who_is_better_in_more_respects():
    said = {"left": "left", "right": "right", "tie": "tie"}
    cases = {("left", "left", "right"): 1, ("left", "tie", "bad"): 1, ("left", "right", "tie"): 0.5, ("tie", "tie", "right"): 0}
    votes = [
        vote(mode="pairs", left="A", right="B", number=number, question=question, answer=said.get(answer, answer))
        for number, answers in enumerate(cases)
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    assert Judged.of("pairs", votes).said[:, 3].tolist() == list(cases.values())


def test_only_first_sights_and_whole_judgements_count():
    votes = judgement("A", 0, (True, True, True)) + judgement("A", 1, (True, True, True))[:2]
    votes += judgement("A", 2, (False, False, False), kind="repeat") + judgement(
        "(spoiled)", 3, (False, False, False), kind="plant", truth="no"
    )
    judged = Judged.of("absolute", votes)
    assert len(judged) == 1 and judged.systems == ("A",)


def test_who_cannot_tell_a_spoiled_clip_is_left_out_and_the_report_says_so():
    votes = []
    for rater, right in (("careful", 6), ("careless", 4), ("almost", 5)):
        for number in range(2):
            answers = [place >= right for place in range(3 * number, 3 * number + 3)]
            votes += judgement("(spoiled)", number, tuple(answers), kind="plant", truth="no", rater=rater)
        votes += judgement("A", 7, (rater != "careless",) * 3, rater=rater)
    report = report_of(votes)
    assert report.trust.left_out == ("careless",) and report.tables[0].rates["text"]["A"].share == 1
    assert "3 raters, of whom 1 left out: under 80% right on planted clips" in to_markdown(report)
    assert "83.3% of 18 answers on planted clips were right" in to_markdown(report)


def test_the_report_says_who_met_no_planted_clip_and_who_has_one_answer_for_everything():
    votes = [said for prompt in range(20) for said in judgement("A", prompt, (False,) * 3, rater="always no")]
    votes += judgement("(spoiled)", 30, (False,) * 3, kind="plant", truth="no", rater="always no")
    votes += judgement("A", 0, (True, False, True), rater="left early")
    report = report_of(votes)
    assert report.trust.left_out == () and (report.trust.untested, report.trust.monotonous) == (1, 1)
    assert "1 of those who are counted left before they met a planted clip. 1 of them had one answer" in to_markdown(report)


def test_one_wrong_answer_on_a_planted_clip_leaves_nobody_out():
    votes = judgement("(spoiled)", 0, (True, False, False), kind="plant", truth="no", rater="r") + judgement("A", 1, (True,) * 3, rater="r")
    assert report_of(votes).trust.left_out == ()


def test_who_has_always_won_is_the_better_one():
    both = {"mode": "pairs", "left": "A", "right": "B", "answer": "left"}, {"mode": "pairs", "left": "B", "right": "A", "answer": "right"}
    pairs = [
        vote(**said, prompt=f"p{prompt}", number=prompt, rater=f"r{rater}", question=question)
        for prompt in range(10)
        for rater, said in enumerate(both)
        for question in QUESTIONS
    ]
    report = report_of(pairs)
    found = next(each for each in report.tables[0].comparisons if each.question == "motion")
    assert found.verdict == "A" and 0 < found.p < 0.01 and 2 < found.difference.value < 5


def test_a_tie_says_why():
    assert "tie (may be chance)" in to_markdown(report_of(sampled(np.random.default_rng(0), {"A": 0.5, "B": 0.5}, prompts=6)))


def test_a_changed_mind_counts_as_it_was_last():
    votes = judgement("A", 0, (True, True, True)) + judgement("A", 0, (True, False, True))
    report = report_of(votes)
    assert report.trust.changed == 1 and report.tables[0].rates["motion"]["A"].share == 0


def test_what_was_asked_twice_is_compared_whatever_the_sides():
    first = {"mode": "pairs", "left": "A", "right": "B", "number": 1}
    again = {"mode": "pairs", "left": "B", "right": "A", "number": 9, "kind": "repeat"}
    votes = [vote(**first, question=question, answer="left") for question in QUESTIONS]
    votes += [
        vote(**again, question=question, answer=answer) for question, answer in zip(QUESTIONS, ("right", "right", "tie"), strict=True)
    ]
    trust = report_of(votes).trust
    assert trust.repeated == 3 and trust.repeated_same == pytest.approx(2 / 3)


def test_results_split_by_what_prompts_ask_for():
    votes = judgement("A", 0, (True,) * 3, tags=("camera", "night")) + judgement("A", 1, (False, True, True), tags=("night",))
    table = report_of(votes).tables[0]
    assert {tag: rates["A"].share for tag, rates in table.tags.items()} == {"camera": 1.0, "night": 0.5}
    assert "| night | 50.0" in to_markdown(report_of(votes))


def test_raters_who_agree_have_an_alpha_of_one():
    votes = [said for rater in "rs" for prompt in range(4) for said in judgement("A", prompt, (prompt % 2 == 0,) * 3, rater=rater)]
    assert report_of(votes).tables[0].alpha == dict.fromkeys(("text", "motion", "visual", "overall"), 1.0)


def test_an_interval_is_wider_where_raters_hang_together():
    """Two raters say yes to everything, two say no."""
    votes = [said for rater in range(4) for prompt in range(25) for said in judgement("A", prompt, (rater < 2,) * 3, rater=f"r{rater}")]
    rate = report_of(votes).tables[0].rates["text"]["A"]
    assert rate.wilson == wilson(50, 100) and rate.design_effect > 10 and rate.interval[1] - rate.interval[0] > 0.6


def test_a_report_is_json():
    report = report_of(sampled(np.random.default_rng(0), {"A": 0.5, "B": 0.9}, prompts=6))
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["tables"][0]["mode"] == "absolute"


def test_nothing_that_counts_is_no_report():
    with pytest.raises(ValueError, match="of 1 raters, 1 are left out"):
        report_of(judgement("(spoiled)", 0, (True, True, True), kind="plant", truth="no"))


def test_votes_come_back_from_a_table_as_they_were(tmp_path):
    votes = judgement("A", 0, (True, False, True), tags=("a:b", "c"), latency_ms=1234, at=1764403200.25, left_made="ab12")
    write_csv(votes, tmp_path / "votes.csv")
    assert read_csv(tmp_path / "votes.csv") == votes
    assert (tmp_path / "votes.csv").read_text(encoding="utf-8").splitlines()[0].split(",") == list(COLUMNS)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [(",yes,", ",maybe,", "Line 2 .* answer is 'maybe'"), ("question,", "asked,", "lacks the columns question")],
)
def test_a_table_that_is_none_is_refused_with_the_place(tmp_path, before, after, says):
    path = tmp_path / "votes.csv"
    write_csv(judgement("A", 0, (True, True, True)), path)
    path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        read_csv(path)
