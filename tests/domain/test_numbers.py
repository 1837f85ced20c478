"""Numbers and moments from outside: whatever comes, a value within bounds or the default; and nobody reads them in another way."""

import ast
import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adapters
import poller
from adapters.aws.clients import translate
from adapters.invokers.lambda_api import facts_of
from adapters.invokers.outcomes import retry_after_s
from adapters.sources.sqs_answers import receives_max
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import RETRY_AFTER_S_MAX, Throttled, Unreachable
from poller.domain.records import Epoch, Message, Monotonic, Position
from poller.domain.untrusted.numbers import (
    MOMENT_MAX,
    date_of,
    http_date,
    iso_moment,
    json_whole,
    moment,
    number,
    whole,
)
from poller.rules.responses import Deferred, ResponseReading, parse
from poller.rules.streams.recreated_stream import created_of
from tests.hostile_texts import HOSTILE

NOW = Epoch(1_445_412_400.0)
ODD_TEXTS = [
    "",
    "0",
    "-1",
    "1.5",
    "9" * 1000,
    "-" + "9" * 5000,
    "0" * 100_000,
    "inf",
    "-Infinity",
    "nan",
    "1e5",
    "1e999999999",
    "1_000",
    "²",
    "१२३",
    "0x10",
    " 7 ",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
    "Wed, 99 Oct 2015 99:99:99 GMT",
    "01 Jan 0001 00:00:00 +2359",
    "31 Dec 9999 23:59:59 -9999",
    "2015-10-21T07:28:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    ", , , ,",
    "Mon",
    *HOSTILE.values(),
]


class Raising:
    """Raises whenever it is looked at."""

    def __float__(self) -> float:
        raise ValueError("no number")

    __int__ = __index__ = __str__ = __float__  # type: ignore[assignment]  # that is what is wrong with it


class Number(int):
    """A number of somebody else's, which cannot be compared."""

    def __lt__(self, other: object) -> bool:
        raise RuntimeError

    __le__ = __gt__ = __ge__ = __lt__


ODD_VALUES: list[Any] = [
    None,
    True,
    -0.0,
    1e300,
    float("inf"),
    float("nan"),
    10**400,
    -(10**400),
    b"12",
    b"\xff",
    Decimal("1e400"),
    [],
    {},
    [[]],
    Raising(),
    Number(5),
    datetime(2020, 1, 1),  # noqa: DTZ001 - a time without a zone is what some library may give
    *ODD_TEXTS,
]
anything = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.text(max_size=40),
    st.binary(max_size=20),
    st.integers(),
    st.floats(),
    st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{1,5})?([eE][0-9]{1,9})?"),
    st.from_regex(
        r"(Mon, )?[0-9]{1,3} (Jan|Foo) [0-9]{1,12} [0-9]{1,3}:[0-9]{2}(:[0-9]{2,9})? (GMT|[-+][0-9]{4,9})"
    ),
)


@pytest.mark.parametrize("digits", [1, 15, 399, 400, 4301, 200_000])
def test_a_whole_number_of_json_is_read_whatever_its_length(digits: int) -> None:
    found = json.loads("9" * digits, parse_int=json_whole)
    assert found == (10**digits - 1 if digits < 400 else inf)


@pytest.mark.parametrize(
    "number", ["9" * 200_000, "9" * 5000, "9" * 130, "x", "", "-5", "4_9", "\N{ARABIC-INDIC DIGIT THREE}"]
)
@pytest.mark.parametrize("kind", ["AFTER", "AT_TIMESTAMP"])
def test_what_is_no_position_is_reported_in_a_few_words(kind: str, number: str) -> None:
    with pytest.raises(ValueError, match="not a position: ") as told:
        Position.decode(f"{kind}:{number}")
    assert len(str(told.value)) < 120


@given(anything)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_a_value_within_bounds_or_the_default(value: Any) -> None:
    for clamp in (False, True):
        assert whole(value, least=3, most=50, default=None, clamp=clamp) in {None, *range(3, 51)}
        found = number(value, least=3, most=50, default=None, clamp=clamp)
        assert found is None or 3.0 <= found <= 50.0
    for read in (moment, http_date, iso_moment):
        when = read(value, default=None)
        assert when is None or 0.0 <= when < MOMENT_MAX
    if type(value) in (int, float):
        assert 1970 <= date_of(value).year <= 9999


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("1.5", None),
        ("-5", None),
        ("9" * 1000, RETRY_AFTER_S_MAX),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 80.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 80.0),
        ("Wed Oct 21 07:28:00 2015", 80.0),
        ("Wed, 21 Oct 2015 07:26:00 GMT", 0.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", RETRY_AFTER_S_MAX),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", RETRY_AFTER_S_MAX),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("inf", None),
        ("nan", None),
        ("²", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_how_long_somebody_wants_to_be_left_alone(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=60)))
@settings(max_examples=200, deadline=None)
def test_no_header_is_believed_beyond_the_bound(header: str) -> None:
    found = retry_after_s(header, NOW)
    assert found is None or 0.0 <= found <= RETRY_AFTER_S_MAX


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (5.0, 5.0),
        (-1.0, 0.0),
        (1e300, RETRY_AFTER_S_MAX),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_an_invoker_of_others_cannot_hold_up_a_batch_for_ever(
    asked: float | None, seconds: float | None
) -> None:
    for outcome in (Throttled("no", asked), Unreachable("no", asked)):
        verdict = parse(outcome, ["1"], ResponseReading())
        assert isinstance(verdict, Deferred)
        assert verdict.retry_after_s == seconds


@pytest.mark.parametrize("value", ODD_VALUES)
def test_attributes_of_messages_and_queues_are_read_whatever_they_are(value: Any) -> None:
    attributes = dict.fromkeys(
        ("ApproximateReceiveCount", "SentTimestamp", "ApproximateFirstReceiveTimestamp"), value
    )
    message = Message(
        message_id="m",
        receipt="r",
        body="",
        attributes=attributes,
        message_attributes={},
        md5_of_body=None,
        received=Monotonic(0.0),
    )
    assert 0 <= message.receives <= 10**14
    assert 0.0 <= message.sent <= MOMENT_MAX
    assert 0.0 <= message.first_received <= MOMENT_MAX
    created = created_of({"stream": {"created": value}})
    assert created is None or 0.0 <= created < MOMENT_MAX


@pytest.mark.parametrize(
    ("policy", "receives"),
    [
        ('{"maxReceiveCount": 5}', 5),
        ('{"maxReceiveCount": "5"}', 5),
        ('{"maxReceiveCount": "abc"}', None),
        ('{"maxReceiveCount": 1e999}', None),
        ('{"maxReceiveCount": null}', None),
        ("[5]", None),
        ("5", None),
        ("nonsense", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_a_redrive_policy_is_read_or_none(policy: str | None, receives: int | None) -> None:
    assert receives_max(policy) == receives


@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_function_s_time_limit_is_a_time_or_an_answer_without_one(value: Any) -> None:
    try:
        found = facts_of({"Timeout": value}).timeout_s
    except ServiceUnavailable:
        return
    assert 1.0 <= found <= 86_400.0


@pytest.mark.parametrize("value", ODD_VALUES)
def test_an_error_of_aws_is_one_of_ours_whatever_its_status_is(value: Any) -> None:
    from botocore.exceptions import ClientError

    reply: Any = {"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": value}}
    assert translate(ClientError(reply, "Op"), "op").reason.startswith("op: X (HTTP ")


def test_a_name_of_digits_that_are_no_number_is_a_name() -> None:
    assert FieldError("mappings.²[1]." + "9" * 5000, "", "").path == ("mappings", "²", 1, "9" * 5000)


# Who reads numbers in another way.

NAMES = frozenset({"int", "float", "Decimal"})
METHODS = frozenset(
    {
        "fromtimestamp",
        "fromisoformat",
        "strptime",
        "parsedate_to_datetime",
        "parsedate_tz",
        "utcfromtimestamp",
    }
)
READ_OTHERWISE = {
    "adapters/invokers/function_processes/usual_requests.py:usual_head": "so many digits at most, just before",
    "adapters/resources/objects.py:_condition_object": "a time of the daemon, or one that datetime has read",
    "adapters/resources/objects.py:_moment": "ValueError becomes None",
    "adapters/resources/objects.py:event_object": "the clock's own time",
    "adapters/invokers/http_signature.py:Signer.headers": "the clock's own time",
    "poller/commands/checkpoint_file.py:_moment": "what a person wrote: ValueError becomes an error that says what to write",
    "poller/commands/status/times.py:moment": "catches what a date may raise",
    "poller/config/field_types.py:Address.parse": "five digits at most, by its pattern",
    "poller/config/mapping.py:_whole": "18 digits at most by its pattern, or a float without fraction",
    "poller/config/mapping.py:_moment": "12 digits at most, by its pattern",
    "poller/config/mapping.py:_from_iso": "what a person wrote: ValueError becomes an error that says what to write",
    "poller/config/mapping.py:_batch": "a number already",
    "poller/config/mapping.py:_retry": "a number already",
    "poller/domain/records.py:Position.after": "digits that were looked at, or a stored row: raises ValueError by contract",
    "poller/domain/streams/places.py:begin_of": "digits that were looked at, as the source checks those of its records",
    "poller/domain/streams/places.py:end_of": "as begin_of",
    "poller/domain/streams/places.py:_parts": "as begin_of, or a part that `is_name` or this program wrote",
    "adapters/sources/kinesis/aggregates.py:_hash_key": "39 digits at most, looked at just before",
    "adapters/sources/kinesis/fan_out.py:_Place.of": "a cursor of this program",
    "poller/domain/records.py:Position.sort_key": "an enum's member",
    "poller/domain/untrusted/rendering.py:_plain": "a number already, and caught",
    "poller/domain/functions/tracing.py:TraceContext.traceparent": "a truth",
    "poller/domain/functions/tracing.py:of_traceparent": "two hexadecimal digits, by its pattern",
    "poller/domain/functions/tracing.py:trace_header": "a truth",
    "poller/domain/functions/tracing.py:_context": "hexadecimal digits, by the patterns of both forms",
    "adapters/tracing/tracer.py:_span_context": "hexadecimal digits of a context that was read",
    "poller/domain/functions/shift_strategies.py:strategy": "four digits at most, by its pattern",
    "poller/runtime/functions/versions/alias_service.py:AliasService.versions": "version numbers, which are digits",
    "poller/output/terminal.py:_given": "digits that were looked at, five at most",
    "poller/runtime/functions/queued_call_run.py:QueuedCallRun._invocation": "the clock, as it was when the call was stored",
    "adapters/stores/dynamodb/call_items.py:due_item": "a number already",
    "adapters/stores/postgresql/call_queue.py:PostgresCallQueue._free": "a number already",
    "adapters/stores/postgresql/call_queue.py:PostgresCallQueue.calls": "a number already",
    "adapters/stores/postgresql/call_queue.py:PostgresCallQueue.claim": "the clock",
    "adapters/stores/postgresql/call_queue.py:PostgresCallQueue.replace": "numbers already",
    "adapters/stores/postgresql/call_queue.py:_values": "numbers already",
    "adapters/stores/postgresql/operation_statements.py:OperationStatements.add": "the clock",
    "adapters/stores/postgresql/operation_statements.py:_time": "a number already",
    "adapters/stores/postgresql/schema.py:version_of": "a column of whole numbers",
    "adapters/stores/postgresql/settings.py:_server": "five digits at most, by its pattern",
    "adapters/stores/postgresql/store.py:PostgresStore.create": "a number already",
    "adapters/stores/postgresql/store.py:PostgresStore.update": "a number already",
    "adapters/stores/sqlite/call_queue.py:SqliteCallQueue.claim": "the clock",
    "adapters/stores/sqlite/call_queue.py:_replace": "numbers already",
    "adapters/stores/sqlite/call_queue.py:_values": "numbers already",
    "adapters/stores/stored_calls.py:_ended_values": "a number already",
    "poller/runtime/workers/heartbeat.py:Heartbeat.__init__": "the clock",
    "adapters/control/operations_api.py:_after": "twelve digits and nine at most, by its pattern",
    "adapters/control/operations_api.py:_limit": "six digits at most, by its pattern",
    "adapters/control/calls/calls_api.py:_limit": "six digits at most, by its pattern",
    "poller/domain/functions/waiting_calls.py:place_of": "twelve digits and nine at most, by the pattern of markers",
    "adapters/stores/sqlite/call_queue.py:_list": "a number already",
    "adapters/control/records_api.py:_limit": "three digits at most, which were looked at",
    "adapters/notices/file.py:DirectoryNotices._settle": "a place that was read from the same file",
    "adapters/notices/file.py:_numbers": "nine digits at most, by its pattern",
    "adapters/notices/file.py:_with_settled": "digits that were looked at and counted",
    "adapters/stores/dynamodb/operation_rows.py:OperationRows.add": "the clock",
    "adapters/stores/dynamodb/operation_rows.py:item_of": "the clock",
    "adapters/stores/stored_operations.py:content": "a number already",
    "adapters/invokers/function_processes/launcher.py:_parents": "the kernel's own numbers",
    "adapters/invokers/function_processes/launcher.py:_wait_for_end": "the number of a signal",
    "adapters/control/mappings/request_members.py:_scalar": "a float without fraction",
    "adapters/control/mappings/paging.py:_whole": "18 digits at most, by its pattern",
    "adapters/control/access/sigv4.py:_moment": "ValueError becomes the refusal of the request",
    "adapters/control/access/sigv4.py:_basic_format": "the clock, or what _moment has read",
    "adapters/aws/request_templates.py:FastOperation._signing": "the clock",
    "adapters/invokers/handlers/calling.py:_decimal": "a function's own answer: whatever it raises is the function's error",
    "adapters/invokers/function_processes/launcher.py:": "an argument that the daemon gives",
    "adapters/invokers/function_processes/peers.py:session": "the kernel's own files",
    "adapters/invokers/function_processes/peers.py:_parent_and_session": "the kernel's own files",
    "adapters/invokers/function_processes/peers.py:socket_in_tables": "the kernel's own files",
    "adapters/invokers/handlers/child.py:Calls.run": "a header that the daemon sends",
    "adapters/invokers/function_processes/runtime_client.py:RuntimeClient.__init__": "the address that the daemon gives",
    "adapters/invokers/function_processes/runtime_client.py:RuntimeClient._rest_of": "a status and a header that the daemon sends",
    "adapters/invokers/handlers/child.py:main": "a variable that the daemon sets",
    "adapters/invokers/function_processes/runtime_entrance.py:ConnectionGuard._may_search": "the clock",
    "adapters/observers/prometheus.py:_daemon": "a bool",
    "adapters/sources/kinesis/stream.py:KinesisStream._behind": "digits that were looked at",
    "adapters/sources/sqs.py:SqsQueue.receive": "a number already",
    "adapters/sources/service_calls.py:from_cursor": "a cursor that the same module made",
    "adapters/stores/dynamodb/table.py:_number": "a stored row: what is no number stays the text that it is, and is damage",
    "adapters/stores/stored_rows.py:_finite": "a stored row: what is no number is damage, which names row and remedy",
    "adapters/stores/stored_rows.py:moment": "a stored row: what is no number is damage, which names row and remedy",
    "adapters/checkpoints/kcl.py:_position_of": "digits that were looked at: ValueError names the row",
    "adapters/stores/sqlite/schema.py:_check_ours": "a number that SQLite keeps itself",
}
"""Module and function to why what it reads cannot raise there, or should. Rules compute with numbers that were read already."""


def read_otherwise() -> Iterator[str]:
    """Where a number or a moment is made of something that is no constant and no sum."""
    for package in (poller, adapters):
        assert package.__file__ is not None
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root.parent).as_posix()
            if not place.startswith(
                ("poller/rules/", "poller/testing/", "adapters/demo/", "poller/domain/untrusted/numbers.py")
            ):
                yield from (f"{place}:{scope}" for scope in _found(ast.parse(path.read_text()), ()))


def _found(node: ast.AST, scope: tuple[str, ...]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = (*scope, child.name)
        if isinstance(child, ast.Call) and _reads(child):
            yield ".".join(scope)
        yield from _found(child, inner)


def _reads(call: ast.Call) -> bool:
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", "")
    if name in METHODS:
        return True
    return (
        name in NAMES
        and bool(call.args)
        and not isinstance(call.args[0], ast.Constant | ast.BinOp | ast.Compare)
    )


def test_numbers_from_outside_are_read_in_one_place() -> None:
    found = set(read_otherwise())
    new = found - READ_OTHERWISE.keys()
    assert not new, "read it with poller.domain.untrusted.numbers, or say here why it cannot raise"
    assert READ_OTHERWISE.keys() <= found, "these are gone: take them out"
