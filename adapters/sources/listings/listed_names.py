"""Owns which names and numbers of a listing are taken: names of shards, ends of closed ones, and the tokens of pages.

Names of shards are kept as keys of leases, and decide which shard is read before which. So a listing with a name that cannot be one
is refused as a whole: without it, a child could be read before its parent.
"""

import re

from adapters.sources.odd_answers import are_numbers
from poller.domain.records import JsonObject, ShardId

SHARD_CHARS_MAX = 128
"""AWS's limit."""
TOKEN_CHARS_MAX = 1_048_576
"""AWS's limit."""
_SHARD = re.compile(rf"[!-~]{{1,{SHARD_CHARS_MAX}}}")
"""Wider than AWS's pattern: some services have colons and slashes in the names."""


def shard_name(wire: JsonObject, name: str) -> ShardId:
    """A shard's name that an answer must have; raises KeyError or ValueError."""
    found = wire[name]
    if not isinstance(found, str) or _SHARD.fullmatch(found) is None:
        raise ValueError(f"{name} is no name of a shard")
    return ShardId(found)


def parent_names(wire: JsonObject, *names: str) -> tuple[ShardId, ...]:
    """The parents that a shard has, each once; a member that is absent, null or empty says that there is none. Raises ValueError."""
    return tuple(dict.fromkeys(shard_name(wire, name) for name in names if wire.get(name) not in (None, "")))


def has_end(wire: JsonObject) -> bool:
    """Whether a shard is closed: its range has a last sequence number.

    What is no sequence number stands for none, since the end of a shard cannot be taken back. Children show the end, too.
    """
    found = (wire.get("SequenceNumberRange") or {}).get("EndingSequenceNumber")
    return isinstance(found, str) and are_numbers([found])


def page_token(answer: JsonObject, name: str) -> str | None:
    """The token of the next page; None if the member is absent, null or empty. Raises ValueError."""
    found = answer.get(name)
    if found is None or found == "":
        return None
    if not isinstance(found, str) or len(found) > TOKEN_CHARS_MAX:
        raise ValueError(f"{name} is no token")
    return found
