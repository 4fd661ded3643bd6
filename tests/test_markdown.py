"""Tables in Markdown."""

from hunyuan_video.markdown import table


def test_a_table_has_a_line_for_its_head_and_one_for_each_row():
    assert table(["name", "clips"], [["cats", 3], ["dogs", "1,000"]]).splitlines() == [
        "| name | clips |",
        "| --- | ---: |",
        "| cats | 3 |",
        "| dogs | 1,000 |",
    ]


def test_what_would_end_a_cell_or_a_line_does_not():
    assert table(["file"], [["a|b\nc.mp4"]]).splitlines()[2:] == ["| a\\|b c.mp4 |"]
