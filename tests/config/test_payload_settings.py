"""`include_payload` and `payload_prefix` beside a mapping: what reaches the plan, and what is refused with which remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from poller.commands.shared import LoadablePlugins
from poller.config.daemon_plan import daemon_plan
from poller.config.field_types import PREFIX_CHARS_MAX, ObjectPrefix
from poller.config.loader import examine
from poller.config.settings import FileMapping, Settings
from poller.domain.plan import DiscardPolicy

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
MAILS = "arn:aws:sqs:eu-west-1:111122223333:mails"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:failed"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:failed"
BUCKET = "arn:aws:s3:::failed"
PREFIX = "s3://large/events"
ON: dict[str, Any] = {"include_payload": True}


def mapping(source: str = STREAM, to: str | None = QUEUE, **more: Any) -> dict[str, Any]:
    """A mapping of a source with an on-failure destination."""
    start = {} if source == MAILS else {"StartingPosition": "LATEST"}
    failed = {} if to is None else {"DestinationConfig": {"OnFailure": {"Destination": to}}}
    return {"FunctionName": "orders", "EventSourceArn": source} | start | failed | more


def discard_policy(given: dict[str, Any]) -> DiscardPolicy:
    """What the plan of a file with this mapping says about batches that are given up."""
    settings = Settings(store="memory://", mappings=(FileMapping.model_validate(given),))
    [planned] = daemon_plan(settings).mappings
    return planned.discard


def problems(folder: Path, *mappings: dict[str, Any]) -> list[str]:
    """What is wrong with a file that has these mappings."""
    file = folder / "poller.yaml"
    file.write_text(json.dumps({"store": "memory://", "mappings": mappings}))
    found = examine(file, {}, LoadablePlugins())
    return [line.removeprefix(f"{file}: ") for line in found.problems]


@pytest.mark.parametrize("source", [STREAM, TABLE])
@pytest.mark.parametrize("destination", [QUEUE, TOPIC])
@pytest.mark.parametrize("prefix", [None, PREFIX])
def test_the_settings_reach_the_plan(
    tmp_path: Path, source: str, destination: str, prefix: str | None
) -> None:
    given_mapping = mapping(source, destination, **ON) | (
        {} if prefix is None else {"payload_prefix": prefix}
    )
    assert problems(tmp_path, given_mapping) == []
    planned = discard_policy(given_mapping)
    assert planned == DiscardPolicy(destination, include_payload=True, payload_prefix=prefix)


def test_documents_are_aws_own_unless_a_mapping_says_otherwise() -> None:
    cases: list[dict[str, Any]] = [{}, {"include_payload": False}]
    for more in cases:
        planned = discard_policy(mapping(**more))
        assert planned == DiscardPolicy(QUEUE)


@pytest.mark.parametrize("destination", [BUCKET, "https://host/failed"])
def test_a_destination_that_has_the_event_in_any_case_may_be_asked_for_it(
    tmp_path: Path, destination: str
) -> None:
    assert problems(tmp_path, mapping(to=destination, **ON)) == []


FOR_STREAMS = (
    "is for streams only: a queue's mapping has no on-failure destination; "
    "remove it: the queue's dead-letter queue gets the messages whole"
)
ALONE = "has no effect by itself; add include_payload: true, or remove it"
NOWHERE = (
    "there is no on-failure destination that could get the event; "
    "add DestinationConfig: {OnFailure: {Destination: ARN}}, or remove it"
)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (mapping(to=None, **ON), [f"include_payload: value true: {NOWHERE}"]),
        (
            mapping(to=None, **ON, DestinationConfig={"OnFailure": {"Destination": ""}}),
            [f"include_payload: value true: {NOWHERE}"],
        ),
        (mapping(MAILS, None, **ON), [f"include_payload: value true: {FOR_STREAMS}"]),
        (mapping(MAILS, None, include_payload=False), [f"include_payload: value false: {FOR_STREAMS}"]),
        (mapping(MAILS, None, payload_prefix=PREFIX), [f"payload_prefix: value '{PREFIX}': {FOR_STREAMS}"]),
        (mapping(payload_prefix=PREFIX), [f"payload_prefix: value '{PREFIX}': {ALONE}"]),
        (
            mapping(payload_prefix=PREFIX, include_payload=False),
            [f"payload_prefix: value '{PREFIX}': {ALONE}"],
        ),
        (
            mapping(to=BUCKET, **ON, payload_prefix=PREFIX),
            [
                f"payload_prefix: value '{PREFIX}': has no effect: a destination of the plug-in s3 gets the whole event "
                "with each notice; remove it"
            ],
        ),
        (
            mapping(**ON, payload_prefix=5),
            ["payload_prefix: value 5: not a text; put it in quotes"],
        ),
        (
            mapping(include_payload="yes please", payload_prefix=PREFIX),
            ["include_payload: value 'yes please': neither true nor false; write one of them"],
        ),
        (
            mapping(**ON, paylod_prefix=PREFIX),
            ["paylod_prefix: unknown setting; did you mean payload_prefix?"],
        ),
    ],
)
def test_a_setting_without_effect_is_refused_with_the_remedy(
    tmp_path: Path, wrong: dict[str, Any], told: list[str]
) -> None:
    assert problems(tmp_path, wrong) == [f"mappings[0].{line}" for line in told]


def test_a_wrong_destination_is_told_alone(tmp_path: Path) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        mapping(to=None, **ON, DestinationConfig={"OnFailure": {"Destination": 5}}),
        mapping(to=None, **ON, DestinationConfig=5),
    )
    for each in wrong:
        [line] = problems(tmp_path, each)
        assert line.startswith("mappings[0].DestinationConfig")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("large/events", "write s3://BUCKET/PREFIX"),
        ("https://large.s3.amazonaws.com/events", "write s3://BUCKET/PREFIX"),
        ("S3://large/events", "write s3://BUCKET/PREFIX"),
        ("s3://", "write s3://BUCKET/PREFIX"),
        ("s3:///events", "write s3://BUCKET/PREFIX"),
        (" s3://large/events", "write s3://BUCKET/PREFIX"),
        ("s3://large/eve\nnts", "write s3://BUCKET/PREFIX"),
        ("arn:aws:s3:::large/events", "is an ARN; write s3://large/events"),
        ("s3://large/a b", "write letters, digits and"),
        ("s3://large/events?versionId=1", "write letters, digits and"),
        ("s3://large/ä", "write letters, digits and"),
        ("s3://large//events", "write s3://BUCKET/PREFIX"),
        ("s3://large/a/../b", "write s3://BUCKET/PREFIX"),
        ("s3://large//", "write s3://BUCKET/PREFIX"),
        (f"s3://large/{'x' * (PREFIX_CHARS_MAX + 1)}", "write a shorter one"),
    ],
)
def test_what_is_no_place_in_a_bucket_is_refused_with_the_remedy(
    tmp_path: Path, text: str, remedy: str
) -> None:
    [line] = problems(tmp_path, mapping(**ON, payload_prefix=text))
    assert line.startswith("mappings[0].payload_prefix: value ")
    assert remedy in line


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://large", "large", ""),
        ("s3://large/", "large", ""),
        ("s3://large/events", "large", "events/"),
        ("s3://large/a/b=c/", "large", "a/b=c/"),
        (f"s3://Old_Bucket.x/{'x' * PREFIX_CHARS_MAX}", "Old_Bucket.x", "x" * PREFIX_CHARS_MAX + "/"),
    ],
)
def test_a_place_is_a_bucket_and_the_beginning_of_keys(text: str, bucket: str, prefix: str) -> None:
    assert ObjectPrefix.parse(text) == ObjectPrefix(bucket, prefix)


@drawn(st.text() | st.from_regex(r"s3://[a-z.]{0,5}/[a-z./=]{0,12}", fullmatch=True))
def test_every_place_that_is_taken_makes_keys_of_whole_parts(text: str) -> None:
    try:
        place = ObjectPrefix.parse(text)
    except ValueError:
        return
    assert place.prefix == "" or place.prefix.endswith("/")
    assert {"", ".", ".."}.isdisjoint(place.prefix.split("/")[:-1])
    assert text.removesuffix("/") == f"s3://{place.bucket}/{place.prefix}".rstrip("/")
