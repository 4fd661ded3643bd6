"""A report as text: the table that the model's own report has, and what makes it one that can be believed."""

from __future__ import annotations

from collections.abc import Sequence

from hunyuan_video import markdown
from hunyuan_video.rating.intervals import LEVEL
from hunyuan_video.rating.judged import ASKED, OVERALL
from hunyuan_video.rating.report import DRAWS, Comparison, Estimate, Pairs, Rate, Report, Table
from hunyuan_video.rating.trust import ENOUGH, MANY, Trust

_HEADS = {"text": "Text alignment", "motion": "Motion quality", "visual": "Visual quality", "overall": "Overall"}
_MODES = {"absolute": "Each clip by itself", "pairs": "Pairs"}
FEW = 10  # raters, below whom their differences are hardly known


def to_markdown(report: Report) -> str:
    return "\n".join([*(line for table in report.tables for line in _of(table)), *_trust(report.trust), ""])


def _of(table: Table) -> list[str]:
    what = "clips" if table.mode == "absolute" else "pairs"
    share = "that passed" if table.mode == "absolute" else "of pairs won, a tie being half a one"
    systems = sorted(table.ranks, key=lambda system: -table.rates[OVERALL][system].share)
    lines = [
        f"## {_MODES[table.mode]}",
        "",
        f"{table.judgements} judgements of {what} for {table.prompts} prompts by {table.raters} raters; each of these {what} "
        f"was judged by {table.raters_each} or more. The share {share} in %, with its {LEVEL:.0%} interval.",
        "",
        markdown.table(
            ["System", *(_HEADS[question] for question in ASKED), "Rank"],
            ([system, *(_rate(table.rates[question][system]) for question in ASKED), _rank(table.ranks[system])] for system in systems),
        ),
        "",
        _overall_means(table.mode)
        + " Intervals are Wilson's, as much wider as votes on one prompt and votes of one rater are alike "
        + f"(by {DRAWS} resamples of each, and of both).",
    ]
    if table.raters < FEW:
        lines += ["", f"With {table.raters} raters it is hardly known how much raters differ: the intervals are rather too narrow."]
    if table.pairs is not None:
        lines += _strengths(table.pairs, systems)
    if table.comparisons:
        lines += _comparisons(table)
    lines += [
        "",
        "### Agreement",
        "",
        markdown.table([_HEADS[question] for question in ASKED], [[_alpha(table.alpha[question]) for question in ASKED]]),
    ]
    lines += ["", "Krippendorff's α between raters: 1 is always, 0 is no more than chance."]
    if table.tags:
        rows = ([tag, *(_rate(rates[system]) if system in rates else "–" for system in systems)] for tag, rates in table.tags.items())
        lines += ["", "### Overall by what prompts ask for", "", markdown.table(["Tag", *systems], rows)]
        lines += ["", "These intervals are Wilson's alone."]
    return [*lines, ""]


def _overall_means(mode: str) -> str:
    if mode == "absolute":
        return "A clip passes overall if it passes all three."
    return "The better one overall is the one that is better in more of the three."


def _strengths(pairs: Pairs, systems: Sequence[str]) -> list[str]:
    rows = [[system, *(_logit(pairs.strengths[question][system]) for question in ASKED)] for system in systems]
    rows += [
        [name, *(_logit(found[question]) for question in ASKED)] for name, found in (("*ties*", pairs.ties), ("*left side*", pairs.left))
    ]
    return [
        "", "### Strengths", "", markdown.table(["System", *(_HEADS[question] for question in ASKED)], rows), "",
        "Bradley and Terry's model, in logits, with ties as Davidson has them: of two systems that are 1 apart, the stronger one wins "
        "e = 2.7 times as often as it loses. *Ties*: how much likelier one is than that a given one of two equals wins. *Left side*: how "
        "much it is favoured.",
    ]  # fmt: skip


def _comparisons(table: Table) -> list[str]:
    percent = table.mode == "absolute"
    rows = (
        [
            f"{found.first} – {found.second}", _HEADS[found.question],
            _points(found.difference) if percent else _logit(found.difference), _p(found.p), _p(found.p_holm),
            _verdict(found),
        ]
        for found in table.comparisons
    )  # fmt: skip
    head = ["", "", "Difference, points" if percent else "Difference, logits", "p", "p, Holm", "Better"]
    return [
        "", "### Every two systems", "", markdown.table(head, rows), "",
        f"Tie: their intervals overlap, or the difference may be chance (p by Holm is {1 - LEVEL:.2f} or more).",
    ]  # fmt: skip


def _verdict(found: Comparison) -> str:
    if found.verdict != "tie":
        return f"**{found.verdict}**"
    return "tie (intervals overlap)" if found.p_holm < 1 - LEVEL else "tie (may be chance)"


def _trust(trust: Trust) -> list[str]:
    rule = f"under {ENOUGH:.0%} right on planted clips, a rule from before the first vote"
    said = [f"{trust.raters} raters, of whom {len(trust.left_out)} left out: {rule}."]
    if trust.untested:
        said.append(f"{trust.untested} of those who are counted left before they met a planted clip.")
    if trust.monotonous:
        said.append(f"{trust.monotonous} of them had one answer to every question of {MANY} clips or more.")
    if trust.planted_right is not None:
        said.append(f"{trust.planted_right:.1%} of {trust.planted} answers on planted clips were right.")
    if trust.repeated_same is not None:
        said.append(f"{trust.repeated_same:.1%} of {trust.repeated} answers were the same when asked again.")
    said.append(f"{trust.changed} answers were changed later, and the last one counts.")
    if trust.seconds is not None:
        said.append(f"A judgement took {trust.seconds:.1f} s in the median.")
    return ["## Raters", "", " ".join(said)]


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * rate.share:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _rank(ends: tuple[int, int]) -> str:
    best, worst = ends
    return f"{best}" if best == worst else f"{best}–{worst} (tie)"


def _logit(found: Estimate) -> str:
    return f"{found.value:+.2f} ({found.interval[0]:+.2f} to {found.interval[1]:+.2f})"


def _points(found: Estimate) -> str:
    return f"{100 * found.value:+.1f} ({100 * found.interval[0]:+.1f} to {100 * found.interval[1]:+.1f})"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _alpha(alpha: float | None) -> str:
    return "–" if alpha is None else f"{alpha:.2f}"
