"""Owns how numbers and moments from outside are read: the result is a value within bounds or the default, never an exception.

Only `bounded_json_whole` raises, because a JSON parser calls it.

The input may be anything: a text of any length, bytes, NaN, an impossible date, or an object of foreign code. A number beyond its
bounds gives the default, or the bound with `clamp`.
"""

from datetime import UTC, datetime
from email.utils import parsedate_tz
from math import isfinite

MOMENT_MAX = 253_402_300_800.0
"""The end of the year 9999. Later moments cannot be shown as a date."""
JSON_DIGITS_MAX = 400
"""A whole number with more digits is beyond a double in any case. Python refuses to parse very long ones."""
DIGITS_MAX = 300
"""No more characters of a text are read. A double has at most 309 digits before its point."""
_BEYOND = 10**DIGITS_MAX
PLAIN_DIGITS_MAX = 15
LOOKED_AT_MAX = 4096
TEXT_CHARS_MAX = 64
"""A longer text is not a date."""
_JSON_WHOLE_MAX = 10**100
_LAST_MOMENT = MOMENT_MAX - 1.0


def whole[D](value: object, *, least: int = 0, most: int, default: D, clamp: bool = False) -> int | D:
    """A whole number from `least` to `most`: an integer, a float without fraction, or decimal digits with or without a sign."""
    # Nearly every value is a short text of digits, and each message has one.
    if type(value) is str and len(value) <= PLAIN_DIGITS_MAX and value.isascii() and value.isdigit():
        found: int | None = int(value)
    else:
        try:
            found = _whole(value)
        except Exception:  # noqa: BLE001 - an object of foreign code may raise anything
            return default
    if found is None or not (clamp or least <= found <= most):
        return default
    return min(max(found, least), most)


def number[D](
    value: object, *, least: float = 0.0, most: float, default: D, clamp: bool = False
) -> float | D:
    """A finite number from `least` to `most`, from a number or a text as in JSON or Python, without underscores."""
    try:
        found = _number(value)
    except Exception:  # noqa: BLE001 - an object of foreign code may raise anything
        return default
    if found is None or not (clamp or least <= found <= most):
        return default
    return min(max(found, least), most)


def json_whole(digits: str) -> float:
    """A whole number of JSON, for `parse_int` of the standard library. A very long one becomes infinite."""
    return int(digits) if len(digits) < JSON_DIGITS_MAX else float(digits)


def bounded_json_whole(digits: str) -> int:
    """As `json_whole`, where a number is kept and not only compared. Raises ValueError for one of more than a hundred digits."""
    found = whole(digits, least=-_JSON_WHOLE_MAX, most=_JSON_WHOLE_MAX, default=None)
    if found is None:
        raise ValueError("a number is too large")
    return found


def moment[D](value: object, *, default: D) -> float | D:
    """Epoch seconds within the years 1970 to 9999, from a number or a text with a number."""
    return number(value, most=_LAST_MOMENT, default=default)


def http_date[D](text: object, *, default: D) -> float | D:
    """Epoch seconds of an HTTP date. Without a zone it is in UTC. A date outside the years 1970 to 9999 gives their first or last moment."""
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
        return default
    try:
        parts = parsedate_tz(text)
        if parts is None:
            return default
        year, month, day, hour, minute, second = (int(each) for each in parts[:6])
        if year > 9999:
            return _LAST_MOMENT
        found = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
        return min(max(found - (parts[9] or 0), 0.0), _LAST_MOMENT)
    except Exception:  # noqa: BLE001 - the library raises IndexError and others for texts that are not a date
        return default


def iso_moment[D](text: object, *, default: D) -> float | D:
    """Epoch seconds of an ISO 8601 text. Without a zone it is in UTC."""
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
        return default
    try:
        found = datetime.fromisoformat(text)
        return moment((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp(), default=default)
    except (ValueError, OverflowError):
        return default


def date_of(when: float) -> datetime:
    """A moment as a date in UTC. A moment outside the calendar gives the nearest possible date."""
    return datetime.fromtimestamp(number(when, most=_LAST_MOMENT, default=0.0, clamp=True), UTC)


def _text(value: object) -> str | None:
    if isinstance(value, bytes | bytearray):
        value = value[: DIGITS_MAX + 1].decode("ascii", "replace")
    if not isinstance(value, str):
        return None
    # The rest of a longer text does not matter: its number is beyond all bounds.
    value = value[:LOOKED_AT_MAX].strip(" \t\r\n")[:DIGITS_MAX]
    return value if value.isascii() and "_" not in value else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return int(value) if isfinite(value) and value.is_integer() else None
    text = _text(value)
    return int(text) if text and text.removeprefix("-").removeprefix("+").isdigit() else None


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return float(min(max(value, -_BEYOND), _BEYOND))
    found = value if isinstance(value, float) else float(_text(value) or "nan")
    return found if isfinite(found) else None
