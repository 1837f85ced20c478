"""Owns how records of a shard look on a screen. Payloads are cut to some lines; `--json` shows them whole."""

from poller.commands.fitting import Screen, ScreenPage
from poller.commands.status.times import SECOND_MS, moment, span
from poller.domain.arns import Arn
from poller.domain.peeking.answers import (
    BatchAtFault,
    FilterVerdict,
    PayloadForm,
    PeekAnswer,
    PeekedRecord,
    ShownPayload,
)
from poller.domain.wording.numbers_of import number_of

PAYLOAD_LINES_MAX = 6
NOTE_LINES_MAX = 4
USER_RECORDS_MAX = 10
"""User records of one record that are shown."""
WHOLE = "--json shows all of what is cut or left out"


def records_page(answer: PeekAnswer, screen: Screen | int) -> ScreenPage:
    """The page for an answer."""
    page = ScreenPage(screen)
    source = Arn.read(answer.source_arn)
    where = f"{source.service} {source.resource}" if source else answer.source_arn
    page.add(f"{answer.function} ← {where}, {answer.shard}", lines_max=3)
    page.line(answer.mapping, depth=1)
    page.add(f"from {answer.start}{_behind(answer)}", depth=1)
    if answer.fault is not None:
        _fault(page, answer.fault)
    for note in answer.notes:
        page.add(f"note: {note}", depth=1, lines_max=NOTE_LINES_MAX)
    if answer.missing:
        page.add(f"note: {answer.missing}", depth=1, lines_max=NOTE_LINES_MAX)
    for record in answer.records:
        page.line("")
        _record(page, record)
    page.line("")
    _end(page, answer)
    if page.shortened:
        page.add(WHOLE)
    return page


def _behind(answer: PeekAnswer) -> str:
    if not answer.behind_ms:
        return ""
    return f", {span(answer.behind_ms / SECOND_MS)} behind the end of the shard"


def _fault(page: ScreenPage, fault: BatchAtFault) -> None:
    lane = "" if fault.lane is None else f" of lane {fault.lane}"
    times = f", {number_of(fault.failures, 'failed attempt')}" if fault.failures else ""
    page.add(f"batch{lane} at fault, since {moment(fault.since)}{times}", depth=1)
    if fault.first:
        page.line(f"first record {fault.first}", depth=2)
    if fault.last and fault.last != fault.first:
        page.line(f"last record {fault.last}", depth=2)


def _record(page: ScreenPage, record: PeekedRecord) -> None:
    page.line(f"record {record.sequence_number}")
    what = [record.event_name] if record.event_name else []
    what += [
        moment(record.arrived),
        number_of(record.size_bytes, "byte"),
        f"lane {record.lane}",
        _verdict(record),
    ]
    page.add(", ".join(what), depth=1)
    page.add(f"key {record.key}" if record.key else "no key", depth=1)
    for reason in record.reasons:
        page.add(reason, depth=2, lines_max=3)
    _payload(page, "", record.payload, depth=1)
    for name, shown in (("keys", record.keys), ("new", record.new_image), ("old", record.old_image)):
        _payload(page, f"{name} ", shown, depth=1)
    _user_records(page, record)


def _verdict(record: PeekedRecord) -> str:
    if record.verdict is FilterVerdict.FILTERED:
        return "filtered"
    return "passes" if record.pattern is None else f"passes by pattern {record.pattern}"


def _user_records(page: ScreenPage, record: PeekedRecord) -> None:
    if record.user_records_count is None:
        return
    page.add(f"{record.user_records_count} user records inside", depth=1)
    shown = record.user_records[:USER_RECORDS_MAX]
    for user in shown:
        page.add(f"key {user.key}" if user.key else "no key", depth=2)
        _payload(page, "", user.payload, depth=3)
    if record.user_records_count > len(shown):
        page.left_out(f"and {record.user_records_count - len(shown)} more", depth=2)


def _payload(page: ScreenPage, name: str, payload: ShownPayload | None, *, depth: int) -> None:
    if payload is None:
        return
    kind = "" if payload.form is PayloadForm.JSON else f"{payload.form.value} "
    packed = "gzip of " if payload.gzip else ""
    if payload.full_bytes == 0:
        page.line(f"{name}{packed}nothing", depth=depth)
        return
    page.add(f"{name}{packed}{kind}{payload.text}", depth=depth, lines_max=PAYLOAD_LINES_MAX)
    if payload.cut:
        full = "unknown" if payload.full_bytes is None else str(payload.full_bytes)
        page.left_out(f"the answer has only the beginning; full size in bytes: {full}", depth=depth)


def _end(page: ScreenPage, answer: PeekAnswer) -> None:
    """Says whether there is more, and how to see it."""
    if answer.more:
        page.line(f"more: --from {answer.next}")
    elif answer.ended:
        page.add("the shard ends here")
    elif answer.fault is not None and answer.records:
        page.add("the batch ends here")
    else:
        page.add("nothing more is there now")
