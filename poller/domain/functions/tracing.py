"""Owns the place of a call in a trace, in the two forms that functions read, and the Protocol of what makes the spans.

X-Ray's header is `Root=1-TIME-REST;Parent=SPAN;Sampled=1`, and may have more members, such as a lineage. W3C's is
`00-TRACE-SPAN-FLAGS`. Time and rest of a root together are W3C's trace id. Headers come from outside: one that cannot be read
counts as none.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.invocations import Invocation, Outcome
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId

HEADER_CHARS_MAX = 1024
"""A longer X-Ray header is ignored."""
STATE_CHARS_MAX = 512
"""A longer `tracestate` is dropped; W3C asks that this many characters are passed on."""
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})", re.ASCII | re.IGNORECASE)
_SPAN = re.compile(r"[0-9a-f]{16}", re.ASCII | re.IGNORECASE)
_W3C = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?", re.ASCII)
_PLAIN = re.compile(r"[\x20-\x7e]*", re.ASCII)
_OWN = frozenset({"root", "parent", "sampled"})
_LINEAGE = "lineage"
_STATE = re.compile(
    r"(?P<key>[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
"""A member of `tracestate`."""
STATES_MAX = 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span that something belongs to: its trace (32 hexadecimal digits), its id (16), and whether it is recorded."""

    trace: str
    span: str
    sampled: bool
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The context in W3C's form."""
        return f"00-{self.trace}-{self.span}-{int(self.sampled):02x}"


class Tracer(Protocol):
    """Makes the spans of calls, and tells each function to which span its call belongs."""

    async def traced(
        self,
        invocation: Invocation,
        call: Callable[[Invocation], Awaitable[Outcome]],
        *,
        function: FunctionPlan,
        mapping: MappingId,
    ) -> Outcome:
        """Calls `call` once and returns what it does. Its invocation has the headers of the call's own span."""
        ...


def of_trace_header(header: str) -> TraceContext | None:
    """The context in an X-Ray header; None if it names no span."""
    named = {_name(each): each.partition("=")[2].strip() for each in members(header)}
    root, span = _ROOT.fullmatch(named.get("root", "")), named.get("parent", "")
    if root is None or not _SPAN.fullmatch(span):
        return None
    return _context(f"{root[1]}{root[2]}".lower(), span.lower(), sampled=named.get("sampled") == "1")


def of_traceparent(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context in W3C's headers; None if they cannot be read."""
    found = _W3C.fullmatch(traceparent) if len(traceparent) <= HEADER_CHARS_MAX else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    return _context(found[2], found[3], sampled=bool(int(found[4], 16) & 1), state=_state(tracestate))


def trace_header(context: TraceContext, before: str = "") -> str:
    """The context as an X-Ray header. Other members of the header that was there before, such as the lineage, are kept as far as they fit."""
    root = f"Root=1-{context.trace[:8]}-{context.trace[8:]}"
    own = [root, f"Parent={context.span}", f"Sampled={int(context.sampled)}"]
    return fitting([*own, *(each for each in members(before) if _name(each) not in _OWN)])


def members(header: str) -> list[str]:
    """The members of an X-Ray header, NAME=VALUE each; none of a text that is no such header."""
    if len(header) > HEADER_CHARS_MAX or not _PLAIN.fullmatch(header):
        return []
    return [each.strip() for each in header.split(";") if "=" in each]


def fitting(wanted: Sequence[str]) -> str:
    """The header with these members, in their order. Of too many it leaves out some, foreign ones first: a longer header is ignored."""
    left = HEADER_CHARS_MAX + 1
    kept: set[int] = set()
    for at, each in sorted(enumerate(wanted), key=lambda found: (_rank(found[1]), found[0])):
        if len(each) < left:
            left -= len(each) + 1
            kept.add(at)
    return ";".join(wanted[at] for at in sorted(kept))


def _rank(member: str) -> int:
    name = _name(member)
    return 0 if name in _OWN else 1 if name == _LINEAGE else 2


def _name(member: str) -> str:
    return member.partition("=")[0].strip().lower()


def _state(tracestate: str) -> str:
    """A `tracestate` as it came; empty if it is too long, or one of its members is not as W3C has it."""
    if len(tracestate) > STATE_CHARS_MAX:
        return ""
    found = [_STATE.fullmatch(each) for part in tracestate.split(",") if (each := part.strip(" \t"))]
    keys = {each["key"] for each in found if each is not None}
    return tracestate if len(keys) == len(found) <= STATES_MAX else ""


def _context(trace: str, span: str, *, sampled: bool, state: str = "") -> TraceContext | None:
    if not int(trace, 16) or not int(span, 16):
        return None
    return TraceContext(trace, span, sampled, state)
