"""Records as an operator sees them: verdicts of the filters, sizes, keys, and payloads only where they may be seen."""

import json
from base64 import b64encode
from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.peeking.answers import FilterVerdict, PayloadForm, PeekedRecord
from poller.domain.records import KinesisRecord, Record
from poller.rules.events import DynamoEncoder
from poller.rules.filtering import Filter, Source
from poller.rules.peeking.payloads import VALUE_BYTES_MAX
from poller.rules.peeking.showing import shown_records
from poller.rules.peeking.verdicts import REASONS_MAX, TOO_MUCH, RecordFilters
from poller.rules.streams.lanes import lane_of
from tests.rules.build import dynamo, kinesis
from tests.rules.peeking.aggregated import aggregated

ENCODER = DynamoEncoder(
    source_arn="arn:aws:dynamodb:eu-west-1:111122223333:table/t/stream/1", region="eu-west-1"
)
PAID = '{"data": {"state": ["paid"]}}'
OPEN = '{"data": {"state": ["open"], "sum": [{"numeric": [">", 100]}]}}'


def done[T](slices: Generator[None, None, T]) -> T:
    """The result of work in slices."""
    while True:
        try:
            next(slices)
        except StopIteration as ended:
            result: T = ended.value
            return result


def record(data: object, number: int = 1) -> KinesisRecord:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return kinesis(number, data=b64encode(raw).decode())


def shown(
    records: Sequence[Record], *patterns: str, lanes: int = 1, payloads: bool = False
) -> tuple[PeekedRecord, ...]:
    source: Source = "kinesis" if isinstance(records[0], KinesisRecord) else "dynamodb"
    return done(
        shown_records(records, RecordFilters(patterns, source, ENCODER), lanes=lanes, payloads=payloads)
    )


def test_a_record_names_the_first_pattern_that_lets_it_pass() -> None:
    found = shown([record({"state": "paid"}), record({"state": "open", "sum": 200})], PAID, OPEN, PAID)
    assert [(each.verdict, each.pattern, each.reasons) for each in found] == [
        (FilterVerdict.PASSES, 1, ()),
        (FilterVerdict.PASSES, 2, ()),
    ]


def test_without_filters_every_record_passes_by_no_pattern() -> None:
    found = shown([record({"state": "x"})])[0]
    assert (found.verdict, found.pattern, found.reasons) == (FilterVerdict.PASSES, None, ())


def test_a_filtered_record_names_the_conditions_that_fail_and_none_of_its_values() -> None:
    found = shown([record({"state": "secret-state", "sum": 7.25})], PAID, OPEN)[0]
    assert found.verdict is FilterVerdict.FILTERED
    assert found.pattern is None
    assert found.reasons == (
        'pattern 1: data.state: none of the values satisfies it (condition: ["paid"])',
        'pattern 2: data.state: none of the values satisfies it (condition: ["open"])',
        'pattern 2: data.sum: none of the values satisfies it (condition: [{"numeric": [">", 100]}])',
    )
    assert "secret" not in str(found)
    assert "7.25" not in str(found)


def test_a_payload_of_another_form_is_named_as_the_reason() -> None:
    found = shown([record(b"plain text")], PAID)[0]
    assert found.reasons == (
        'data: the payload is plain and these conditions are for JSON (condition: data.state: ["paid"])',
    )


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        ({"state": "x" * 100_000}, PAID),
        ({"a": 1}, json.dumps({"data": {"$or": [{"a": [n]} for n in range(100, 130)]}})),
    ],
)
def test_reasons_are_left_out_where_they_would_take_long(data: object, pattern: str) -> None:
    found = shown([record(data)], pattern)[0]
    assert (found.verdict, found.reasons) == (FilterVerdict.FILTERED, (TOO_MUCH,))


def test_the_number_of_reasons_is_limited() -> None:
    wide = json.dumps({"data": {f"f{n}": [n] for n in range(30)}})
    assert len(shown([record({})], wide)[0].reasons) == REASONS_MAX


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["paid", "open", ""]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["state", "sum"]), inner),
        max_leaves=8,
    )
)
def test_the_verdict_is_that_of_the_filters_of_the_mapping(data: object) -> None:
    given_record = record(data)
    criteria = Filter.of([PAID, OPEN], "kinesis")
    assert criteria is not None
    passes = criteria.matches_kinesis("k", "1", given_record.arrived, given_record.data)
    found = shown([given_record], PAID, OPEN)[0]
    assert (found.verdict is FilterVerdict.PASSES) == passes
    assert (found.pattern is not None) == passes
    assert bool(found.reasons) != passes


def test_without_the_permission_no_payload_is_shown() -> None:
    found = shown([record({"state": "secret"}), record(aggregated([("inner-key", b"secret")]))])
    for each in found:
        assert each.payload is None
        assert each.user_records == ()
        assert "secret" not in str(each)
        assert "inner-key" not in str(each)
    change = shown([dynamo(5, image={"name": {"S": "secret"}})])[0]
    assert (change.keys, change.new_image, change.old_image) == (None, None, None)
    assert "secret" not in str(change)


def test_a_kinesis_record_is_shown_with_place_key_time_and_size() -> None:
    found = shown([record(b"hello", 7), record(b"hell", 8), record(b"", 9)], payloads=True)
    assert [each.size_bytes for each in found] == [5, 4, 0]
    assert (found[0].sequence_number, found[0].key, found[0].arrived) == ("7", "k", 1_767_225_600.0)
    assert found[0].payload is not None
    assert (found[0].payload.form, found[0].payload.text) == (PayloadForm.TEXT, "hello")


def test_each_record_names_the_lane_that_processes_it() -> None:
    records = [kinesis(number, key=f"key-{number}") for number in range(20)]
    assert [each.lane for each in shown(records, lanes=4)] == [lane_of(f"key-{n}", 4) for n in range(20)]


def test_user_records_are_shown_in_place_of_the_packed_data() -> None:
    found = shown([record(aggregated([("a", b"one"), ("b", b'{"n":2}')]))], payloads=True)[0]
    assert found.payload is None
    assert found.user_records_count == 2
    assert [(each.key, each.payload.text, each.payload.form) for each in found.user_records] == [
        ("a", "one", PayloadForm.TEXT),
        ("b", '{"n":2}', PayloadForm.JSON),
    ]


def test_a_change_of_a_table_is_shown_with_its_key_and_images_in_the_json_of_dynamodb() -> None:
    found = shown([dynamo(5, image={"name": {"S": "Ada"}})], payloads=True)[0]
    assert (found.event_name, found.key, found.size_bytes) == ("INSERT", '{"pk":{"S":"order-1"}}', 47)
    assert found.keys is not None
    assert json.loads(found.keys.text) == {"pk": {"S": "order-1"}}
    assert found.new_image is not None
    assert json.loads(found.new_image.text) == {"name": {"S": "Ada"}}
    assert found.new_image.form is PayloadForm.JSON
    assert found.old_image is None


def test_a_change_of_a_table_is_filtered_by_its_images() -> None:
    pattern = '{"dynamodb": {"NewImage": {"name": {"S": ["Ada"]}}}}'
    found = shown([dynamo(5, image={"name": {"S": "Ada"}}), dynamo(6, image={"name": {"S": "Eve"}})], pattern)
    assert [each.verdict for each in found] == [FilterVerdict.PASSES, FilterVerdict.FILTERED]
    assert found[1].reasons == (
        'dynamodb.NewImage.name.S: none of the values satisfies it (condition: ["Ada"])',
    )


def test_large_payloads_share_the_room_and_name_their_full_size() -> None:
    found = shown([record(b"x" * 2_000_000, number) for number in range(6)], payloads=True)
    shown_sizes = [len(each.payload.text) for each in found if each.payload is not None]
    assert shown_sizes == [VALUE_BYTES_MAX] * 4 + [0, 0]
    assert {each.payload.full_bytes for each in found if each.payload is not None} == {2_000_000}
    assert {each.size_bytes for each in found} == {2_000_000}


def test_a_hostile_key_is_cleaned_and_cut() -> None:
    found = shown([kinesis(1, key="\x1b[2J" + "k" * 400)])[0]
    assert len(found.key) == 256
    assert "\x1b" not in found.key


@given(st.text(max_size=100), st.none() | st.text(max_size=20))
def test_any_data_and_key_can_be_shown(data: str, key: str | None) -> None:
    found = shown([kinesis(1, key=key, data=data)], PAID, payloads=True)[0]
    assert found.size_bytes >= 0
    assert found.payload is not None
