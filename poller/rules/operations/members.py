"""Owns the members that each action has, and the form of their values. `ACTION_MEMBERS` is the table.

A parser gets a value of a JSON document and returns the value that is kept, which is plain JSON again. It raises ValueError with
the remedy for a value that cannot be used. What a value means for the mapping is checked by `accepting`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from poller.domain.operations import Action
from poller.domain.streams.places import is_name
from poller.domain.untrusted.numbers import MOMENT_MAX, iso_moment

ID_CHARS_MAX = 128
"""The longest id of an operation, shard, message group, message or record. AWS's own ids are not longer."""
RECORDS_MAX = 1_000
"""Records that one skip names, and shards that one seek names."""
TEXT_CHARS_MAX = 2_048
"""Other texts, such as ARNs and addresses."""
FILTER_CHARS_MAX = 4_096
"""AWS's limit for a pattern of a filter."""
RATE_MIN, RATE_MAX = 0.001, 1_000_000
"""A rate in a second: one in a quarter of an hour at least. What is slower is like a stop, and shares of it come to nothing."""
COUNT_MAX = 1_000_000_000

ALL = "all"
"""What stands for the ids of all asynchronous calls of a function."""
FIRST, BATCH = "first", "batch"
"""What a skip may mean instead of ids: the first record of the batch at fault, or all of its records."""
BATCH_FIRST, BATCH_COUNT = "batch_first", "batch_count"
"""The members that say which batch is meant: the id of its first record, and how many it has. Another one may be at fault by now."""
STARTS = ("TRIM_HORIZON", "LATEST")
_ID = re.compile(r"[!-~]+", re.ASCII)

type Parser = Callable[[Any], Any]
type Actions = Mapping[Action, Mapping[str, ActionMember]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionMember:
    """A member of an action: how its value is read, and whether it must be there."""

    read: Parser
    required: bool = False


def truth(value: Any) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def identifier(value: Any) -> str:
    """An id: printable ASCII without blanks."""
    if not isinstance(value, str) or len(value) > ID_CHARS_MAX or not _ID.fullmatch(value):
        raise ValueError(f"write a text of 1 to {ID_CHARS_MAX} characters: ASCII, no blanks")
    return value


def identifiers(value: Any) -> list[str]:
    """A list of ids, in its order and without repetitions."""
    if not isinstance(value, list) or not 1 <= len(value) <= RECORDS_MAX:
        raise ValueError(f"write a list of 1 to {RECORDS_MAX} ids")
    return list(dict.fromkeys(identifier(each) for each in value))


def skipped(value: Any) -> str | list[str]:
    """What a skip is about: `first`, `batch`, or ids."""
    if isinstance(value, str) and value in (FIRST, BATCH):
        return value
    if isinstance(value, list):
        return identifiers(value)
    raise ValueError(f'write "{FIRST}", "{BATCH}", or a list of 1 to {RECORDS_MAX} ids')


def calls(value: Any) -> str | list[str]:
    """Asynchronous calls: `all`, or their ids."""
    if value == ALL and isinstance(value, str):
        return ALL
    if isinstance(value, list):
        return identifiers(value)
    raise ValueError(f'write "{ALL}", or a list of 1 to {RECORDS_MAX} ids')


def text(value: Any) -> str:
    """A text of one line that is not empty."""
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > TEXT_CHARS_MAX
        or not value.isprintable()
    ):
        raise ValueError(f"write a text of 1 to {TEXT_CHARS_MAX} printable characters")
    return value.strip()


def address(value: Any) -> str:
    """A place of notices: an ARN, or a URL without a user and password, since everybody who may look reads it."""
    found = text(value)
    _, slashes, rest = found.partition("://")
    if slashes and "@" in rest.partition("/")[0]:
        raise ValueError("write the URL without a user and password; the daemon's own credentials are used")
    return found


def place(value: Any) -> str | float:
    """A place in a stream: TRIM_HORIZON, LATEST, a time (ISO 8601, or epoch seconds as a number), or a sequence number (digits as a text), which may have a part."""
    if isinstance(value, str) and (value in STARTS or is_name(value)):
        return value
    if isinstance(value, str) and iso_moment(value, default=None) is not None:
        return value
    if not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < MOMENT_MAX:
        return float(value)
    raise ValueError(
        "write TRIM_HORIZON, LATEST, a time such as 2026-01-31T08:00:00Z, or a sequence number in quotes"
    )


def rate(value: Any) -> float:
    """A number per second."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not RATE_MIN <= value <= RATE_MAX
    ):
        raise ValueError(f"write a number from {RATE_MIN} to {RATE_MAX}")
    return float(value)


def count(value: Any) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= COUNT_MAX:
        raise ValueError(f"write a whole number from 1 to {COUNT_MAX}")
    return value


def pattern(value: Any) -> str:
    """A filter's pattern as a JSON text. Whether it can be used is checked by those who carry it out."""
    if not isinstance(value, str) or not value.strip() or len(value) > FILTER_CHARS_MAX:
        raise ValueError(f"write the pattern as a JSON text of 1 to {FILTER_CHARS_MAX} characters")
    return value


ACTION_MEMBERS: Actions = MappingProxyType(
    {
        Action.RETRY: {},
        Action.RESET: {},
        Action.SKIP: {
            "records": ActionMember(read=skipped, required=True),
            BATCH_FIRST: ActionMember(read=identifier),
            BATCH_COUNT: ActionMember(read=count),
            "send": ActionMember(read=truth),
            "discard": ActionMember(read=truth),
        },
        Action.PAUSE: {},
        Action.RESUME: {},
        Action.SEEK: {
            "to": ActionMember(read=place, required=True),
            "shards": ActionMember(read=identifiers),
            "skip": ActionMember(read=truth),
            "dry_run": ActionMember(read=truth),
        },
        Action.REPLAY: {
            "from": ActionMember(read=place, required=True),
            "to": ActionMember(read=place, required=True),
            "function": ActionMember(read=text),
            "filter": ActionMember(read=pattern),
            "records_per_s": ActionMember(read=rate),
            "on_failure": ActionMember(read=text),
        },
        Action.REDRIVE: {
            "from": ActionMember(read=address, required=True),
            "limit": ActionMember(read=count),
            "messages_per_s": ActionMember(read=rate),
            "dry_run": ActionMember(read=truth),
        },
    }
)
CALL_MEMBERS: Actions = MappingProxyType(
    {
        Action.RETRY: {"calls": ActionMember(read=calls, required=True)},
        Action.SKIP: {
            "calls": ActionMember(read=calls, required=True),
            "send": ActionMember(read=truth),
            "discard": ActionMember(read=truth),
        },
        Action.REDRIVE: ACTION_MEMBERS[Action.REDRIVE],
    }
)
"""The actions on asynchronous calls of a function."""
