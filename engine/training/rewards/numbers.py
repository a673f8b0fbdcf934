"""Numbers in answers: found, read and compared. Knows how people and models write them: 1,234.5, -3/4, 50 %, \\boxed{42}, #### 42."""

from __future__ import annotations

import re
from fractions import Fraction

from engine.training.rewards import Grade, Plain, Rollout, wanted

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d+,\d{1,2}(?![\d,])|\d+(?:\.\d+)?|\.\d+)"
_EXPONENT = r"(?:[eE][+-]?\d{1,3}|\s*(?:\\times|\\cdot|×|\*)\s*10\s*(?:\^|\*\*)\s*\{?\s*[+-]?\d{1,3}\s*\}?)?"
# A minus between two things is no sign.
_SIGN = r"(?:(?<![A-Za-z0-9_.)\]}])[+-])?"
_CURRENCY = r"(?:[$€£¥]\s*)?"
_FRACTION = r"\\[dt]?frac\s*\{\s*-?\d+(?:\.\d+)?\s*\}\s*\{\s*-?\d+(?:\.\d+)?\s*\}"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?<![\d.]){_CURRENCY}(?:(?P<latex>(?:\d+\s*)?{_FRACTION})|(?P<mixed>\d+\s+\d+\s*/\s*\d+)|"
    rf"(?P<ratio>\d+(?:\.\d+)?\s*/\s*\d+(?:\.\d+)?)(?![\d/])|(?P<plain>{_DIGITS}){_EXPONENT.replace('(?:', '(?P<exponent>', 1)})"
    r"\s*(?P<percent>\\?%|percent\b|per cent\b)?"
)
_SHOWN = 60
# What is marked as the answer counts before whatever else is said.
_MARKS = (re.compile(r"####\s*([^\n]+)"), re.compile(r"(?:final answer|answer)\s*(?:is|=|:)\s*([^\n]+)", re.IGNORECASE))


class Numeric(Plain):
    """1 where the answer's last number is the expected one; a number that is boxed or marked as the answer counts before others."""

    def one(self, rollout: Rollout) -> Grade:
        known = wanted(rollout, self.part)
        if isinstance(known, Grade):
            return known
        expected = [number for number in map(last_number, known) if number]
        if not expected:
            return Grade(0.0, f"what is expected holds no number: {known[0][:_SHOWN]!r}", failed=True)
        said = last_number(rollout.answer)
        if said is None:
            return Grade(0.0, "the answer holds no number")
        if any(same(said, one, self.part.tolerance) for one in expected):
            return Grade(1.0)
        return Grade(0.0, f"says {shown(said)}, expected {shown(expected[0])}")


def last_number(text: str) -> tuple[Fraction, bool] | None:
    """(the number, whether it is in percent): that in the last box, else after the last mark of an answer, else the last of all."""
    text = text.replace("−", "-").replace("\u2009", "").replace("\u00a0", " ").replace("\\,", "").replace("\\!", "").replace("{,}", ",")
    places = [boxed(text), *([*mark.findall(text)][-1:] for mark in _MARKS)]
    for number, place in enumerate(places):
        inside = [one for one in place if _NUMBER.search(one)]
        if inside:
            # After a mark the first number is the answer, and what follows is talk; a box holds the answer alone.
            return _number(list(_NUMBER.finditer(inside[-1]))[0 if number else -1])
    found = list(_NUMBER.finditer(text))
    return _number(found[-1]) if found else None


def boxed(text: str) -> list[str]:
    r"""What stands in \boxed{...}, the last box alone; braces inside are followed."""
    start = text.rfind("\\boxed")
    opening = text.find("{", start) if start >= 0 else -1
    if opening < 0 or text[start + 6 : opening].strip():
        return []
    depth = 0
    for place in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return [text[opening + 1 : place]]
    return [text[opening + 1 :]]


def same(one: tuple[Fraction, bool], other: tuple[Fraction, bool], tolerance: float) -> bool:
    """Whether two numbers are as near as that share of the second; 50 % is 0.5, and 50 where only one says percent."""
    (a, a_percent), (b, b_percent) = one, other
    if a_percent == b_percent:
        return _near(a, b, tolerance)
    if a_percent:
        return _near(a, b, tolerance) or _near(a / 100, b, tolerance)
    return _near(a, b, tolerance) or _near(a, b / 100, tolerance)


def shown(number: tuple[Fraction, bool]) -> str:
    """For people."""
    value, percent = number
    plain = str(value.numerator) if value.denominator == 1 and abs(value.numerator) < 10**15 else f"{float_of(value):.10g}"
    return plain + (" %" if percent else "")


def float_of(value: Fraction) -> float:
    """As near as a float comes; infinite beyond."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _near(a: Fraction, b: Fraction, tolerance: float) -> bool:
    return abs(a - b) <= Fraction(tolerance) * (abs(b) if b else 1)


def _number(match: re.Match[str]) -> tuple[Fraction, bool] | None:
    try:
        return _read(match)
    except ValueError:  # thousands of digits
        return None


def _read(match: re.Match[str]) -> tuple[Fraction, bool] | None:
    percent = bool(match["percent"])
    value: Fraction | None
    if match["latex"]:
        before, _, rest = match["latex"].partition("\\")
        top, bottom = re.findall(r"-?\d+(?:\.\d+)?", rest)
        value = _ratio(top, bottom, before.strip())
    elif match["mixed"]:
        whole, top, bottom = re.findall(r"\d+", match["mixed"])
        value = _ratio(top, bottom, whole)
    elif match["ratio"]:
        value = _ratio(*re.split(r"\s*/\s*", match["ratio"]))
    else:
        value = Fraction(_plain(match["plain"]))
        if match["exponent"]:
            value *= Fraction(10) ** int(re.findall(r"[+-]?\d+", match["exponent"])[-1])
    if value is None:
        return None
    return (-value if "-" in match["sign"] else value), percent


def _ratio(top: str, bottom: str, whole: str = "") -> Fraction | None:
    if not Fraction(bottom):
        return None
    part = Fraction(top) / Fraction(bottom)
    return Fraction(whole) + part if whole else part


def _plain(text: str) -> str:
    """Thousands' separators out, a decimal comma made a point."""
    if re.fullmatch(r"\d{1,3}(\.\d{3})+,\d+", text) or re.fullmatch(r"\d+,\d{1,2}", text):
        return text.replace(".", "").replace(",", ".")
    return text.replace(",", "")
