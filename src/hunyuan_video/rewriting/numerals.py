"""Numbers as Chinese writes them."""

from __future__ import annotations

SIGNS = "零〇一二两三四五六七八九十百千万"
_DIGITS = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_PLACES = {"十": 10, "百": 100, "千": 1000}


def value(numeral: str) -> int:
    """Of 三, 十二, 三百 or 两万."""
    ten_thousands, total, digit = 0, 0, 0
    for sign in numeral:
        if sign == "万":
            ten_thousands, total, digit = (total + digit or 1) * 10_000, 0, 0
        elif sign in _PLACES:
            total, digit = total + (digit or 1) * _PLACES[sign], 0
        else:
            digit = _DIGITS[sign]
    return ten_thousands + total + digit
