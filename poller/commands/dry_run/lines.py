"""Owns the lines that a dry run prints, for people and as JSON. All texts are clean when they come here, except events."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from poller.commands.dry_run.choice import title
from poller.commands.dry_run.ending import DryEnd
from poller.commands.dry_run.recorder import DryCall, DryDiscard, DryItem, DryNote, EventFacts, SourceTally
from poller.domain.plan import MappingPlan
from poller.domain.records import MappingId, ShardId
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of

SHARD_CHARS_MAX = 256
TEXT_CHARS_MAX = 4096
EVENT = "  event "
"""How the line of an event begins. It is JSON to be copied, and so one line on any screen."""
_ENDS = {
    DryEnd.CAUGHT_UP: "all that was there was read",
    DryEnd.LIMIT: "--limit is reached, there may be more",
    DryEnd.TIME: "--seconds are over, there may be more",
    DryEnd.SIGNAL: "interrupted",
}
_BLANK = re.compile(r"[\t\n\r]")
_UNSAFE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class DryResult:
    """How a dry run ended: why, after how many seconds, what was seen of each shard or queue, and whether all could be read."""

    end: DryEnd
    seconds: float
    tallies: Mapping[tuple[MappingId, ShardId | None], SourceTally]
    ok: bool


def printable_json(payload: bytes) -> str:
    """An event in printable ASCII on one line, equal when parsed. Texts of records may control a terminal otherwise."""
    return _UNSAFE.sub(_escaped, _BLANK.sub(" ", payload.decode("utf-8", "replace")))


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class DryLines:
    """The lines about the mappings of one dry run."""

    def __init__(self, chosen: Sequence[MappingPlan]) -> None:
        self._plans = {each.mapping: each for each in chosen}

    def of(self, item: DryItem) -> list[str]:
        """An item as lines for people."""
        match item:
            case DryCall():
                return self._call(item)
            case DryDiscard():
                ids = _between(item.first, item.last)
                text = f"{number_of(item.records, 'record')} would be given up without a call: {item.condition}{self._destination(item)}"
                return [f"{self.place(item.mapping, item.shard)}: {text}", *ids]
            case DryNote():
                return [self.noted(item)]
            case _:
                assert_never(item)

    def noted(self, item: DryNote) -> str:
        """The line of a note."""
        text = line_of(item.text, chars_max=TEXT_CHARS_MAX)
        return text if item.mapping is None else f"{self.place(item.mapping, item.shard)}: {text}"

    def place(self, mapping: MappingId, shard: ShardId | None) -> str:
        """A mapping and its shard, for people."""
        plan = self._plans.get(mapping)
        name = f"mapping {mapping}" if plan is None else title(plan)
        return name if shard is None else f"{name}, {_clean(shard)}"

    def document(self, item: DryItem) -> str:
        """An item as a line of JSON."""
        match item:
            case DryCall():
                return self._call_document(item)
            case DryDiscard():
                members: dict[str, Any] = {"type": "discard", **self._names(item.mapping, item.shard)}
                members |= {"records": item.records, "condition": item.condition.value}
                return json.dumps(members | {"first": item.first, "last": item.last})
            case DryNote():
                kind = "problem" if item.problem else "note"
                text = line_of(item.text, chars_max=TEXT_CHARS_MAX)
                return json.dumps({"type": kind, **self._names(item.mapping, item.shard), "text": text})
            case _:
                assert_never(item)

    def so_far(self, tallies: Mapping[tuple[MappingId, ShardId | None], SourceTally]) -> str:
        """How far a run is, in one line."""
        read = sum(each.read for each in tallies.values())
        calls = sum(each.calls for each in tallies.values())
        done = sum(each.caught_up_at is not None for each in tallies.values())
        return f"{number_of(read, 'record')} read, {number_of(calls, 'call')}; {number_of(done, 'source', of=len(tallies))} read to the end"

    def summary(self, result: DryResult) -> list[str]:
        """The end as lines for people."""
        lines = ["summary"]
        for (mapping, shard), tally in sorted(result.tallies.items(), key=lambda each: str(each[0])):
            if shard is None and not tally.answered:
                continue
            begins = f", from {tally.begins}" if tally.begins else ""
            parts = [
                f"{number_of(tally.read, 'record')} read",
                f"{tally.filtered} filtered",
                f"{number_of(tally.calls, 'call')} with {number_of(tally.records, 'record')}",
                *([f"{tally.discarded} given up"] if tally.discarded else []),
            ]
            lines.append(f"  {self.place(mapping, shard)}{begins}: {', '.join(parts)}")
        lines.append(
            f"ended after {result.seconds:.1f} s: {_ENDS[result.end]}; nothing was invoked or written"
        )
        return lines

    def summary_document(self, result: DryResult) -> str:
        """The end as a line of JSON."""
        sources = [
            {
                **self._names(mapping, shard),
                "begins": tally.begins or None,
                "read": tally.read,
                "filtered": tally.filtered,
                "calls": tally.calls,
                "records": tally.records,
                "discarded": tally.discarded,
                "caught_up": tally.caught_up_at is not None,
            }
            for (mapping, shard), tally in sorted(result.tallies.items(), key=lambda each: str(each[0]))
            if shard is not None or tally.answered
        ]
        members = {"type": "summary", "ended": result.end.value, "seconds": round(result.seconds, 3)}
        return json.dumps({**members, "ok": result.ok, "sources": sources})

    def _call(self, call: DryCall) -> list[str]:
        event = call.event
        filtered = f", {call.filtered} filtered before" if call.filtered else ""
        head = f"call {call.number}: {self.place(call.mapping, call.shard)}"
        lines = [
            f"{head}: {number_of(event.records, 'record')}, {event.payload_bytes} bytes{filtered}{_window(event)}"
        ]
        lines += _between(event.first, event.last)
        return [*lines, f"{EVENT}{printable_json(event.payload)}"] if event.payload else lines

    def _call_document(self, call: DryCall) -> str:
        event = call.event
        members: dict[str, Any] = {"type": "call", "number": call.number}
        members |= self._names(call.mapping, call.shard)
        members |= {"records": event.records, "first": event.first, "last": event.last}
        members |= {"bytes": event.payload_bytes, "filtered": call.filtered}
        if event.window is not None:
            members["window"] = {"start": event.window[0], "end": event.window[1], "final": event.final}
        text = json.dumps(members)
        # The event is put in as it is: no number of it goes through a float.
        return f'{text[:-1]}, "event": {printable_json(event.payload)}}}' if event.payload else text

    def _names(self, mapping: MappingId | None, shard: ShardId | None) -> dict[str, str | None]:
        plan = None if mapping is None else self._plans.get(mapping)
        if plan is None:
            return {"mapping": mapping}
        shown = None if shard is None else _clean(shard)
        return {
            "mapping": mapping,
            "source": plan.source_arn,
            "function": plan.function_arn,
            "shard": shown,
        }

    def _destination(self, item: DryDiscard) -> str:
        plan = self._plans.get(item.mapping)
        return (
            "" if plan is None or plan.discard.destination is None else ", with a notice to its destination"
        )


def _ended(result: DryResult) -> str:
    caught_up = result.end is DryEnd.CAUGHT_UP
    return "what could be read was read" if caught_up and not result.ok else _ENDS[result.end]


def _clean(shard: str) -> str:
    return line_of(shard, chars_max=SHARD_CHARS_MAX)


def _between(first: str, last: str) -> list[str]:
    if not first:
        return []
    return [f"  first {first}", f"  last  {last}"]


def _window(event: EventFacts) -> str:
    if event.window is None:
        return ""
    closes = ", closes it" if event.final else ""
    return f", window {event.window[0]} to {event.window[1]}{closes}"
