"""HTML from values of strangers."""

from __future__ import annotations

from html import escape

_TEMPLATES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def text(value: object) -> str:
    """As it was typed, wherever it stands; also what Gradio's templates would take for theirs."""
    return escape(str(value)).translate(_TEMPLATES)


def duration(seconds: float) -> str:
    """About so long, for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
