"""A ledger loses nothing that it has, whenever a process is killed."""

from __future__ import annotations

import pytest

from hunyuan_video.curation.ledger import Ledger, rounded


def test_what_is_kept_is_there_for_the_next_one(tmp_path):
    ledger = Ledger(tmp_path / "a" / "b.jsonl")
    first, _ = ledger.keep([{"id": "x", "value": 0.12345678}, {"id": "y", "words": "ä"}])
    assert first["value"] == 0.123457
    again = Ledger(tmp_path / "a" / "b.jsonl")
    assert again.records == {"x": {"id": "x", "value": 0.123457}, "y": {"id": "y", "words": "ä"}}
    assert "x" in again and "z" not in again


def test_each_record_is_on_the_disk_before_the_next_is_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"

    def found():
        for number in range(3):
            assert (path.read_bytes().count(b"\n") if path.exists() else 0) == number
            yield {"id": str(number)}

    assert len(list(Ledger(path).keep(found()))) == 3


@pytest.mark.parametrize("cut", range(1, 14))
def test_half_a_line_is_taken_off_and_written_again(tmp_path, cut):
    path = tmp_path / "a.jsonl"
    list(Ledger(path).keep([{"id": "x"}, {"id": "yyyy"}]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    ledger = Ledger(path)
    assert set(ledger.records) == {"x"}
    list(ledger.keep([{"id": "yyyy"}]))
    assert path.read_bytes() == whole


def test_of_two_lines_the_last_counts(tmp_path):
    list(Ledger(tmp_path / "a.jsonl").keep([{"id": "x", "a": 1}, {"id": "x", "a": 2}]))
    assert Ledger(tmp_path / "a.jsonl")["x"]["a"] == 2


def test_numbers_are_rounded_wherever_they_are():
    assert rounded({"a": [1 / 3, (2, 1e-9 / 3)], "b": True}) == {"a": [0.333333, [2, 3.33333e-10]], "b": True}


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085", "\n", "\r"])
def test_whatever_ends_a_line_of_text_ends_no_record(tmp_path, end):
    (record,) = Ledger(tmp_path / "a.jsonl").keep([{"id": "x", "caption": f"one{end}two"}])
    assert Ledger(tmp_path / "a.jsonl")["x"] == record
