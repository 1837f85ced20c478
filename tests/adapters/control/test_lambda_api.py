"""Lambda's mapping API over a model of the mappings: bodies to the byte, errors, lists, tags, limits."""

import io
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from adapters.control import lambda_api, responses
from adapters.control.aws_errors import IN_THE_FILE, UNKNOWN_ROUTE
from adapters.control.mappings import paging
from adapters.control.mappings.mapping_document import MEMBERS
from adapters.control.responses import BODY_BYTES_MAX
from adapters.control.settings import ApiSettings
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import STATUS, LoopFactory, Running, Setting, View, on_both_loops, serving

ROOT = "/2015-03-31/event-source-mappings"
ID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
OTHER = "1f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b12"
ARN = f"arn:aws:lambda:eu-west-1:111122223333:event-source-mapping:{ID}"
TAGS = "/2017-03-31/tags/" + ARN.replace(":", "%3A")
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
OPEN = ApiSettings(allow_unauthenticated=True)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

ON_QUEUE = {"FunctionName": "reader", "EventSourceArn": QUEUE}
ON_STREAM = {"FunctionName": "reader", "EventSourceArn": STREAM, "StartingPosition": "TRIM_HORIZON"}

QUEUE_BODY = (
    '{"StartingPosition":null,"SelfManagedEventSource":null,"ParallelizationFactor":null,"FilterCriteria":null,'
    '"FilterCriteriaError":null,"ProvisionedPollerConfig":null,"MetricsConfig":null,"LastModified":1767225600.338,'
    '"LastProcessingResult":null,"DestinationConfig":null,"AmazonManagedKafkaEventSourceConfig":null,'
    '"SourceAccessConfigurations":null,"UUID":"0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11",'
    '"MaximumBatchingWindowInSeconds":0,"BatchSize":10,"FunctionArn":"arn:aws:lambda:eu-west-1:111122223333:function:reader",'
    '"KMSKeyArn":null,"MaximumRetryAttempts":null,"ScalingConfig":null,"Topics":null,'
    '"EventSourceArn":"arn:aws:sqs:eu-west-1:111122223333:orders","SelfManagedKafkaEventSourceConfig":null,'
    '"DocumentDBEventSourceConfig":null,"TumblingWindowInSeconds":null,"BisectBatchOnFunctionError":null,'
    '"EventSourceMappingArn":"arn:aws:lambda:eu-west-1:111122223333:event-source-mapping:0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11",'
    '"State":"Creating","LoggingConfig":null,"MaximumRecordAgeInSeconds":null,"StartingPositionTimestamp":null,"Queues":null,'
    '"StateTransitionReason":"USER_INITIATED","FunctionResponseTypes":[]}'
)
STREAM_BODY = (
    '{"StartingPosition":"TRIM_HORIZON","SelfManagedEventSource":null,"ParallelizationFactor":1,"FilterCriteria":null,'
    '"FilterCriteriaError":null,"ProvisionedPollerConfig":null,"MetricsConfig":null,"LastModified":1767225600.338,'
    '"LastProcessingResult":"No records processed","DestinationConfig":{"OnSuccess":null,"OnFailure":{"Destination":null}},'
    '"AmazonManagedKafkaEventSourceConfig":null,"SourceAccessConfigurations":null,'
    '"UUID":"0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11","MaximumBatchingWindowInSeconds":0,"BatchSize":100,'
    '"FunctionArn":"arn:aws:lambda:eu-west-1:111122223333:function:reader","KMSKeyArn":null,"MaximumRetryAttempts":-1,'
    '"ScalingConfig":null,"Topics":null,"EventSourceArn":"arn:aws:kinesis:eu-west-1:111122223333:stream/readings",'
    '"SelfManagedKafkaEventSourceConfig":null,"DocumentDBEventSourceConfig":null,"TumblingWindowInSeconds":0,'
    '"BisectBatchOnFunctionError":false,'
    '"EventSourceMappingArn":"arn:aws:lambda:eu-west-1:111122223333:event-source-mapping:0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11",'
    '"State":"Creating","LoggingConfig":null,"MaximumRecordAgeInSeconds":-1,"StartingPositionTimestamp":null,"Queues":null,'
    '"StateTransitionReason":"User action","FunctionResponseTypes":[]}'
)


def having(model: MappingModel, use: Callable[[Running], Awaitable[Any]]) -> Any:
    """What `use` finds at a server over `model` that needs no credentials."""
    return serving(use, Setting(api=OPEN, control=model, tags=model))


def one(*given: dict[str, Any]) -> MappingModel:
    """A model with a mapping for each request, the first with a known id."""
    model = MappingModel(ids=[ID, OTHER])
    for request in given or (ON_QUEUE,):
        having(model, lambda run, request=request: run.ask("POST", ROOT, json=request))  # type: ignore[misc]  # bound now
    model.asked.clear()
    return model


def asked(model: MappingModel, method: str, path: str, **more: Any) -> tuple[int, bytes, Any]:
    """Status, body to the byte and headers of one request."""
    found: tuple[int, bytes, Any] = having(model, lambda run: run.exact(method, path, **more))
    return found


def view(number: int, **more: Any) -> MappingView:
    """A mapping with an id that sorts by `number`."""
    given: dict[str, Any] = {
        "mapping": MappingId(f"{number:08x}-0000-4000-8000-000000000000"),
        "parameters": {"EventSourceArn": QUEUE, "BatchSize": 10},
        "function_arn": FUNCTION,
        "state": MappingState.ENABLED,
        "reason": "USER_INITIATED",
        "last_modified": Epoch(1767225600.0),
    }
    return MappingView(**(given | more))


def filled(*views: MappingView) -> MappingModel:
    return MappingModel(known={each.mapping: each for each in views})


@pytest.mark.parametrize("path", [ROOT, ROOT + "/"])
@pytest.mark.parametrize(("request_json", "body"), [(ON_QUEUE, QUEUE_BODY), (ON_STREAM, STREAM_BODY)])
def test_create_answers_all_members_in_order(path: str, request_json: dict[str, Any], body: str) -> None:
    status, found, headers = asked(MappingModel(ids=[ID]), "POST", path, json=request_json)
    assert (status, found.decode()) == (202, body)
    assert headers["Content-Type"] == "application/json"
    assert UUID.fullmatch(headers["x-amzn-requestid"])
    assert "x-amzn-errortype" not in headers


@pytest.mark.parametrize("path", [f"{ROOT}/{ID}", f"{ROOT}/{ID}/", f"{ROOT}/{ID.upper()}"])
def test_get_answers_the_same_document(path: str) -> None:
    model = one()
    model.settle()
    status, found, _ = asked(model, "GET", path)
    assert (status, found.decode()) == (200, QUEUE_BODY.replace("Creating", "Enabled"))


@pytest.mark.parametrize("path", [f"{ROOT}/{ID}", f"{ROOT}/{ID}/"])
def test_update_answers_the_changed_document(path: str) -> None:
    model = one(ON_STREAM)
    model.now = 1767225601.0
    status, found, _ = asked(model, "PUT", path, json={"MaximumRetryAttempts": 3, "EventSourceArn": "x"})
    changed = STREAM_BODY.replace("Creating", "Updating").replace('Attempts":-1', 'Attempts":3')
    assert (status, found.decode()) == (202, changed.replace("1767225600.338", "1767225601.0"))
    assert model.asked == [("update", (ID, {"MaximumRetryAttempts": 3}))]


@pytest.mark.parametrize(("enabled", "state"), [(True, "Enabling"), (False, "Disabling")])
def test_update_switches(enabled: bool, state: str) -> None:
    _, found, _ = asked(one(), "PUT", f"{ROOT}/{ID}", json={"Enabled": enabled})
    assert json.loads(found)["State"] == state


@pytest.mark.parametrize("path", [f"{ROOT}/{ID}", f"{ROOT}/{ID}/"])
def test_delete_answers_the_document_as_deleting(path: str) -> None:
    model = one()
    status, found, _ = asked(model, "DELETE", path)
    assert (status, found.decode()) == (202, QUEUE_BODY.replace("Creating", "Deleting"))
    assert asked(model, "GET", path)[0] == 404


@pytest.mark.parametrize("path", [ROOT, ROOT + "/"])
def test_an_empty_list_has_44_bytes(path: str) -> None:
    status, found, _ = asked(MappingModel(), "GET", path)
    assert (status, found) == (200, b'{"EventSourceMappings":[],"NextMarker":null}')
    assert len(found) == 44


def test_list_answers_the_documents() -> None:
    status, found, _ = asked(one(), "GET", ROOT)
    assert (status, found.decode()) == (200, f'{{"EventSourceMappings":[{QUEUE_BODY}],"NextMarker":null}}')


def test_tags_are_set_listed_and_removed() -> None:
    model = one({**ON_QUEUE, "Tags": {"team": "a"}})

    async def use(run: Running) -> list[tuple[int, bytes]]:
        steps = [
            await run.exact("POST", TAGS, json={"Tags": {"a b": "c+d", "x": ""}}),
            await run.exact("GET", TAGS),
            await run.exact("DELETE", TAGS + "?tagKeys=a%20b&tagKeys=none&tagKeys=a%20b"),
            await run.exact("GET", TAGS + "/"),
            await run.exact("GET", "/2017-03-31/tags/" + ARN),
        ]
        return [(status, body) for status, body, _ in steps]

    left = (200, b'{"Tags":{"team":"a","x":""}}')
    assert having(model, use) == [
        (204, b""),
        (200, b'{"Tags":{"team":"a","a b":"c+d","x":""}}'),
        (204, b""),
        left,
        left,
    ]
    assert model.asked[-1] == ("untag", (ID, ("a b", "none")))


def test_tags_are_not_in_the_document() -> None:
    _, found, _ = asked(MappingModel(ids=[ID]), "POST", ROOT, json={**ON_QUEUE, "Tags": {"a": "b"}})
    assert found.decode() == QUEUE_BODY


def test_a_tag_answer_has_an_id_and_no_body() -> None:
    _, _, headers = asked(one(), "POST", TAGS, json={"Tags": {}})
    assert UUID.fullmatch(headers["x-amzn-requestid"])
    assert headers["Content-Type"] == "application/json"


WHOLE_QUEUE = {
    "BatchSize": 20,
    "MaximumBatchingWindowInSeconds": 5,
    "FilterCriteria": {"Filters": [{"Pattern": '{"body":{"a":[1]}}'}, {"Pattern": "{}"}]},
    "ScalingConfig": {"MaximumConcurrency": 7},
    "MetricsConfig": {"Metrics": ["EventCount"]},
    "KMSKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/a",
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
}
WHOLE_STREAM = {
    "BatchSize": 20,
    "MaximumBatchingWindowInSeconds": 5,
    "ParallelizationFactor": 4,
    "MaximumRecordAgeInSeconds": 60,
    "MaximumRetryAttempts": 0,
    "BisectBatchOnFunctionError": True,
    "TumblingWindowInSeconds": 0,
    "StartingPosition": "AT_TIMESTAMP",
    "StartingPositionTimestamp": 1767225600.1239,
    "DestinationConfig": {"OnFailure": {"Destination": QUEUE}},
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"EventSourceArn": QUEUE} | WHOLE_QUEUE, WHOLE_QUEUE),
        (
            {"EventSourceArn": STREAM} | WHOLE_STREAM,
            WHOLE_STREAM
            | {
                "StartingPositionTimestamp": 1767225600.124,
                "DestinationConfig": {"OnSuccess": None, "OnFailure": {"Destination": QUEUE}},
            },
        ),
        (
            {"EventSourceArn": QUEUE, "ProvisionedPollerConfig": {"MaximumPollers": 9, "MinimumPollers": 2}},
            {"ProvisionedPollerConfig": {"MinimumPollers": 2, "MaximumPollers": 9}, "ScalingConfig": None},
        ),
        (
            {
                "EventSourceArn": QUEUE,
                "FilterCriteria": {"Filters": []},
                "ScalingConfig": {},
                "KMSKeyArn": "",
                "MetricsConfig": {"Metrics": []},
            },
            {"FilterCriteria": None, "ScalingConfig": None, "KMSKeyArn": None, "MetricsConfig": None},
        ),
    ],
)
def test_what_is_set_is_shown(given: dict[str, Any], shown: dict[str, Any]) -> None:
    status, found, _ = asked(MappingModel(), "POST", ROOT, json={"FunctionName": "reader", **given})
    body = json.loads(found)
    assert (status, tuple(body)) == (202, MEMBERS)
    assert {name: body[name] for name in shown} == shown


def test_a_stream_shows_how_its_last_call_ended_and_a_queue_does_not() -> None:
    stream = view(1, parameters={"EventSourceArn": STREAM}, last_result="PROBLEM: Function call failed")
    queue = view(2, last_result="OK")
    _, found, _ = asked(filled(stream, queue), "GET", ROOT)
    listed = json.loads(found)["EventSourceMappings"]
    assert [each["LastProcessingResult"] for each in listed] == ["PROBLEM: Function call failed", None]


def test_a_moment_of_whole_seconds_keeps_its_fraction() -> None:
    _, found, _ = asked(filled(view(1)), "GET", ROOT)
    assert b'"LastModified":1767225600.0,' in found


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (ApiErrorType.PARAMETER, 400, '{"Type":"User","message":"Why."}'),
        (ApiErrorType.CONFLICT, 409, '{"Type":"User","message":"Why."}'),
        (ApiErrorType.MISSING, 404, '{"Type":"User","Message":"Why."}'),
        (ApiErrorType.IN_USE, 400, '{"Type":"User","Message":"Why."}'),
        (ApiErrorType.VALIDATION, 400, '{"message":"Why."}'),
        (ApiErrorType.THROTTLED, 429, '{"Type":"User","message":"Why."}'),
        (ApiErrorType.SERVICE, 500, '{"Type":"Service","Message":"Why."}'),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", ROOT, ON_QUEUE),
        ("PUT", f"{ROOT}/{ID}", {}),
        ("DELETE", f"{ROOT}/{ID}", None),
        ("POST", TAGS, {"Tags": {}}),
        ("DELETE", TAGS + "?tagKeys=a", None),
    ],
)
def test_each_refusal_has_its_status_and_shape(
    fault: ApiErrorType, status: int, body: str, method: str, path: str, sent: Any
) -> None:
    model = one()
    model.refusal = ApiError(fault, "Why.")
    found_status, found, headers = asked(model, method, path, json=sent)
    assert (found_status, found.decode()) == (status, body)
    assert headers["x-amzn-errortype"] == fault.value
    assert headers["Content-Type"] == "application/json"
    assert UUID.fullmatch(headers["x-amzn-requestid"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("name", [OTHER, "nothing", "%00", "a" * 1000])
def test_an_unknown_mapping_is_not_there(method: str, name: str) -> None:
    status, found, headers = asked(one(), method, f"{ROOT}/{name}")
    assert (status, found) == (
        404,
        b'{"Type":"User","Message":"The resource you requested does not exist."}',
    )
    assert headers["x-amzn-errortype"] == "ResourceNotFoundException"


def test_a_twin_is_a_conflict_that_names_the_first() -> None:
    status, found, _ = asked(one(), "POST", ROOT, json=ON_QUEUE)
    assert (status, json.loads(found)) == (
        409,
        {
            "Type": "User",
            "message": f'An event source mapping with SQS arn (" {QUEUE} ") and function (" reader ") already exists. '
            f"Please update or delete the existing mapping with UUID {ID}",
        },
    )


@pytest.mark.parametrize("qualifier", ["$LATEST", "$LATEST.PUBLISHED", "1", "live"])
def test_a_qualifier_is_kept_and_makes_another_mapping(qualifier: str) -> None:
    status, found, _ = asked(one(), "POST", ROOT, json={**ON_QUEUE, "FunctionName": f"reader:{qualifier}"})
    assert (status, json.loads(found)["FunctionArn"]) == (202, f"{FUNCTION}:{qualifier}")


@pytest.mark.parametrize("sent", [{}, {"FunctionName": None}, {"EventSourceArn": QUEUE}, None])
def test_a_mapping_without_a_function_is_refused(sent: Any) -> None:
    status, found, _ = asked(MappingModel(), "POST", ROOT, json=sent)
    text = "1 validation error detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null"
    assert (status, found.decode()) == (400, f'{{"message":"{text}"}}')


def test_a_mapping_without_a_source_is_refused() -> None:
    status, found, _ = asked(MappingModel(), "POST", ROOT, json={"FunctionName": "reader", "Topics": ["a"]})
    assert (status, found) == (400, b'{"Type":"User","message":"Unrecognized event source."}')


def test_members_of_other_sources_are_refused_when_they_say_something() -> None:
    model = MappingModel()
    refused = asked(model, "POST", ROOT, json={**ON_QUEUE, "Topics": ["a"]})
    assert refused[0] == 400
    assert b"Unsupported Topics parameter for given event source mapping type." in refused[1]
    assert (
        asked(model, "POST", ROOT, json={**ON_QUEUE, "Topics": [], "Queues": None, "LoggingConfig": {}})[0]
        == 202
    )


def test_unknown_members_and_nulls_are_passed_over() -> None:
    model = MappingModel()
    sent = {
        **ON_QUEUE,
        "Unknown": {"a": [1]},
        "include_payload": True,
        "payload_prefix": "s3://failed/events",
        "BatchSize": None,
        "ScalingConfig": {"MaximumConcurrency": None, "b": 1},
    }
    assert asked(model, "POST", ROOT, json=sent)[0] == 202
    assert model.asked == [("create", {**ON_QUEUE, "ScalingConfig": {}})]


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_an_empty_update_changes_nothing(body: bytes) -> None:
    model = one()
    assert (
        asked(model, "PUT", f"{ROOT}/{ID}", data=body, headers={"Content-Type": "application/json"})[0] == 202
    )
    assert model.asked == [("update", (ID, {}))]


WRONG_TYPES = [
    ('{"BatchSize":"10"}', "STRING_VALUE can not be converted to an Integer"),
    ('{"BatchSize":true}', "TRUE_VALUE can not be converted to an Integer"),
    ('{"BatchSize":1.5}', "NUMBER_VALUE can not be converted to an Integer"),
    ('{"FunctionName":5}', "NUMBER_VALUE can not be converted to a String"),
    ('{"FunctionName":false}', "FALSE_VALUE can not be converted to a String"),
    ('{"Enabled":"true"}', "STRING_VALUE can not be converted to a Boolean"),
    ('{"Enabled":0}', "NUMBER_VALUE can not be converted to a Boolean"),
    ('{"StartingPositionTimestamp":"2026"}', "STRING_VALUE can not be converted to milliseconds since epoch"),
    ('{"FunctionName":{}}', "Start of structure or map found where not expected"),
    ('{"BatchSize":[1]}', "Start of list found where not expected"),
    ('{"FilterCriteria":[]}', "Start of list found where not expected"),
    ('{"FilterCriteria":"a"}', "Unexpected value type in payload"),
    ('{"FilterCriteria":{"Filters":{}}}', "Start of structure or map found where not expected"),
    ('{"FunctionResponseTypes":"a"}', "Expected list or null"),
    ('{"FunctionResponseTypes":[1]}', "NUMBER_VALUE can not be converted to a String"),
    ('{"Tags":["a"]}', "Start of list found where not expected"),
    ('{"Tags":"a"}', "Expected map or null"),
    ('{"Tags":{"a":1}}', "NUMBER_VALUE can not be converted to a String"),
    ("[]", "Start of list found where not expected"),
    ('"a"', "Unexpected value type in payload"),
    ("null", "Unexpected value type in payload"),
    ("{", "The request body is not valid JSON"),
    ('{"BatchSize":NaN}', "The request body is not valid JSON"),
    ('{"BatchSize":Infinity}', "The request body is not valid JSON"),
    ('{"FunctionName":"\\ud800"}', "The request body is not valid JSON"),
    ('{"a":' * 5000 + "1" + "}" * 5000, "The request body is not valid JSON"),
    ('{"secret":"hunter2"', "The request body is not valid JSON"),
    ("\ufeff{}", "The request body is not valid JSON"),
]


@pytest.mark.parametrize(("body", "text"), WRONG_TYPES, ids=[each[0][:40] for each in WRONG_TYPES])
def test_a_body_of_a_wrong_type_is_refused(body: str, text: str) -> None:
    model = MappingModel()
    headers = {"Content-Type": "application/json"}
    status, found, answered = asked(model, "POST", ROOT, data=body.encode(), headers=headers)
    assert (status, found.decode()) == (400, f'{{"message":"{text}"}}')
    assert answered["x-amzn-errortype"] == "SerializationException"
    assert model.asked == []


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    headers = {"Content-Type": "application/json"}
    status, found, _ = asked(MappingModel(), "POST", ROOT, data=b'{"FunctionName":"\xff"}', headers=headers)
    assert (status, found) == (400, b'{"message":"The request body is not valid JSON"}')


@pytest.mark.parametrize(
    ("number", "kept"), [("1e1", 10), ("10.0", 10), ("99999999999999999999", 10**20), ("-0", 0)]
)
def test_whole_numbers_are_taken_as_they_are_written(number: str, kept: int) -> None:
    model = MappingModel()
    body = json.dumps(ON_QUEUE)[:-1] + f',"BatchSize":{number}}}'
    asked(model, "POST", ROOT, data=body.encode(), headers={"Content-Type": "application/json"})
    assert model.asked[0][1]["BatchSize"] == kept


def test_of_a_member_that_is_there_twice_the_last_counts() -> None:
    model = one()
    body = b'{"BatchSize":1,"BatchSize":2}'
    asked(model, "PUT", f"{ROOT}/{ID}", data=body, headers={"Content-Type": "application/json"})
    assert model.asked == [("update", (ID, {"BatchSize": 2}))]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("APPLICATION/JSON; charset=utf-8", 202),
        ("application/x-amz-json-1.1", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=a", 415),
        ("nonsense", 415),
    ],
)
def test_a_body_must_be_json(content_type: str, status: int) -> None:
    model = MappingModel()
    body = json.dumps(ON_QUEUE).encode()
    found, _, headers = asked(model, "POST", ROOT, data=body, headers={"Content-Type": content_type})
    assert found == status
    assert headers.get("x-amzn-errortype") == (None if status == 202 else "UnsupportedMediaTypeException")


def test_a_body_in_chunks_is_taken() -> None:
    async def chunks() -> Any:
        for byte in json.dumps(ON_QUEUE).encode():
            yield bytes([byte])

    model = MappingModel(ids=[ID])
    status, found, _ = asked(model, "POST", ROOT, data=chunks(), headers={"Content-Type": "application/json"})
    assert (status, found.decode()) == (202, QUEUE_BODY)


def test_a_compressed_body_is_not_unpacked() -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    status, found, _ = asked(MappingModel(), "POST", ROOT, data=b"\x1f\x8b", headers=headers)
    assert (status, found) == (400, b'{"message":"The request body is not valid JSON"}')


def test_a_body_that_is_too_large_is_refused() -> None:
    body = io.BytesIO(b'{"a":"' + b"a" * BODY_BYTES_MAX + b'"}')
    model = MappingModel()
    status, found, headers = asked(
        model, "POST", ROOT, data=body, headers={"Content-Type": "application/json"}
    )
    text = "Request must be smaller than 1048576 bytes"
    assert (status, found.decode()) == (413, f'{{"Type":"User","message":"{text}"}}')
    assert headers["x-amzn-errortype"] == "RequestTooLargeException"
    assert model.asked == []


@on_both_loops
def test_a_body_that_comes_too_slowly_is_given_up(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "HANDLE_S", 0.2)
    model = MappingModel()
    head = f"POST {ROOT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    setting = Setting(api=OPEN, control=model, tags=model, loop_factory=loop_factory)
    found = serving(lambda run: run.raw(head.encode()), setting)
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"x-amzn-errortype: ServiceUnavailableException\r\n" in found
    assert model.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/layers",
        "/2015-03-31/functions/reader/policy",
        "/2015-03-31/",
        "/2017-03-31/tags",
        f"{ROOT}/{ID}/more",
        f"//2015-03-31/{ROOT}",
        "/2015-03-31/event-source-mapping",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_refused_as_by_aws(method: str, path: str) -> None:
    status, found, headers = asked(one(), method, path)
    if path.startswith("//"):
        assert (status, json.loads(found)["error"]) == (404, "not_found")
        return
    assert (status, json.loads(found)) == (403, {"Message": UNKNOWN_ROUTE})
    assert UNKNOWN_ROUTE.startswith(
        "Unable to determine service/operation name to be authorized (This daemon"
    )
    assert headers["x-amzn-errortype"] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", ROOT, "GET,HEAD,POST"),
        ("DELETE", ROOT, "GET,HEAD,POST"),
        ("POST", f"{ROOT}/{ID}", "DELETE,GET,HEAD,PUT"),
        ("PUT", TAGS, "DELETE,GET,HEAD,POST"),
        ("OPTIONS", ROOT, "GET,HEAD,POST"),
    ],
)
def test_another_method_is_refused_with_those_allowed(method: str, path: str, allowed: str) -> None:
    status, _, headers = asked(one(), method, path)
    assert (status, headers["Allow"]) == (405, allowed)
    assert headers["x-amzn-errortype"] == "UnknownOperationException"


@pytest.mark.parametrize("path", ["/2015-03-31/functions/reader/versions", "/2015-03-31/functions"])
def test_who_would_make_functions_is_told_of_the_file(path: str) -> None:
    status, found, _ = asked(one(), "POST", path)
    assert status == 405
    assert json.loads(found)["message"].endswith(IN_THE_FILE)


def test_without_a_control_the_api_says_that_it_is_not_there() -> None:
    async def use(run: Running) -> list[tuple[int, Any]]:
        asked = [("GET", ROOT), ("POST", ROOT), ("PUT", f"{ROOT}/{ID}"), ("DELETE", TAGS), ("GET", TAGS)]
        return [(await run.ask(method, path))[:2] for method, path in asked]

    body = {"message": lambda_api.NO_CONTROL}
    assert serving(use, Setting(api=OPEN)) == [(501, body)] * 5


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{ROOT}/{ID}"),
        ("GET", ROOT),
        ("GET", TAGS),
        ("POST", TAGS),
        ("DELETE", TAGS + "?tagKeys=team"),
    ],
)
def test_while_not_all_mappings_are_known_none_is_said_to_be_missing(method: str, path: str) -> None:
    body: dict[str, Any] = {"json": {"Tags": {}}} if method == "POST" else {}
    opening = View(replace(STATUS, complete=False))
    setting = Setting(api=OPEN, view=opening, control=MappingModel(), tags=MappingModel())
    status, found, headers = serving(lambda run: run.exact(method, path, **body), setting)
    assert (status, headers["x-amzn-errortype"]) == (500, "ServiceException")
    assert json.loads(found) == {"Type": "Service", "Message": lambda_api.INCOMPLETE}


def test_a_mapping_that_is_known_is_shown_while_others_are_not() -> None:
    model = one()
    setting = Setting(api=OPEN, view=View(replace(STATUS, complete=False)), control=model, tags=model)
    assert serving(lambda run: run.ask("GET", f"{ROOT}/{ID}"), setting)[0] == 200
    assert serving(lambda run: run.ask("GET", TAGS), setting)[:2] == (200, {"Tags": {}})


def test_a_bug_behind_the_api_is_a_service_exception(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MappingModel):
        """Mappings with a bug."""

        def views(self) -> tuple[MappingView, ...]:
            raise RuntimeError("hunter2")

    status, found, headers = asked(Broken(), "GET", ROOT)
    assert (status, headers["x-amzn-errortype"]) == (500, "ServiceException")
    assert found == b'{"Type":"Service","Message":"A fault of this server; its log has the cause"}'
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("asked_for", "numbers"),
    [
        ("reader", [1, 5]),
        ("111122223333:function:reader", [1]),
        (FUNCTION, [1]),
        ("reader:live", [2]),
        (FUNCTION + ":live", [2]),
        ("reader:$LATEST", [3]),
        (FUNCTION + ":$LATEST", [3]),
        ("writer", [4]),
        ("nobody", []),
        ("a.b", []),
        ("arn:aws:lambda:eu-west-2:111122223333:function:reader", []),
        ("222233334444:function:reader", [5]),
    ],
)
def test_a_list_is_filtered_by_the_exact_function(asked_for: str, numbers: list[int]) -> None:
    model = filled(
        view(1),
        view(2, function_arn=FUNCTION + ":live"),
        view(3, function_arn=FUNCTION + ":$LATEST"),
        view(4, function_arn=FUNCTION.replace("reader", "writer")),
        view(5, function_arn=FUNCTION.replace("111122223333", "222233334444")),
    )
    quoted = asked_for.replace(":", "%3A").replace("$", "%24")
    status, found, _ = asked(model, "GET", f"{ROOT}?FunctionName={quoted}")
    assert (status, found.count(b'"UUID"')) == (200, len(numbers))
    assert ids(found) == [view(number).mapping for number in numbers]


def test_a_list_is_filtered_by_the_source() -> None:
    model = filled(view(1), view(2, parameters={"EventSourceArn": STREAM}))
    assert ids(asked(model, "GET", f"{ROOT}?EventSourceArn={STREAM}")[1]) == [view(2).mapping]
    assert ids(asked(model, "GET", f"{ROOT}?EventSourceArn={QUEUE}x")[1]) == []
    assert ids(asked(model, "GET", f"{ROOT}?EventSourceArn={QUEUE}&FunctionName=reader")[1]) == [
        view(1).mapping
    ]
    assert len(ids(asked(model, "GET", f"{ROOT}?EventSourceArn=&Marker=")[1])) == 2


def ids(body: bytes) -> list[str]:
    return [each["UUID"] for each in json.loads(body)["EventSourceMappings"]]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "MaxItems=0",
            "Value '0' at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            "MaxItems=10001",
            "Value '10001' at 'maxItems' failed to satisfy constraint: Member must have value less than or equal to 10000",
        ),
        (
            "FunctionName=",
            "Value '' at 'functionName' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            "FunctionName=a%20b",
            "Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression",
        ),
        (
            "EventSourceArn=orders",
            "Value 'orders' at 'eventSourceArn' failed to satisfy constraint: Member must satisfy regular",
        ),
    ],
)
def test_a_list_query_out_of_range_is_refused(query: str, text: str) -> None:
    status, found, headers = asked(MappingModel(), "GET", f"{ROOT}?{query}")
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert text in json.loads(found)["message"]
    assert list(json.loads(found)) == ["message"]


def test_several_wrong_query_parameters_are_reported_at_once() -> None:
    _, found, _ = asked(MappingModel(), "GET", f"{ROOT}?MaxItems=0&EventSourceArn=a")
    assert json.loads(found)["message"].startswith(
        "2 validation errors detected: Value 'a' at 'eventSourceArn'"
    )


@pytest.mark.parametrize("number", ["a", "", "1.5", "1e2", "%00", "9" * 40])
def test_a_number_of_items_that_is_none_is_refused(number: str) -> None:
    status, _, headers = asked(MappingModel(), "GET", f"{ROOT}?MaxItems={number}")
    assert (status, headers["x-amzn-errortype"]) == (400, "SerializationException")


@pytest.mark.parametrize(("items", "pages"), [(None, 3), (10_000, 3), (100, 3), (99, 3), (50, 5), (240, 3)])
def test_a_list_comes_in_pages_of_at_most_a_hundred(items: int | None, pages: int) -> None:
    model = filled(*(view(number) for number in range(240)))
    limit = "" if items is None else f"&MaxItems={items}"

    async def use(run: Running) -> list[list[str]]:
        found: list[list[str]] = []
        marker: str | None = ""
        while marker is not None:
            _, body, _ = await run.exact("GET", f"{ROOT}?Marker={marker}{limit}")
            found.append(ids(body))
            marker = json.loads(body)["NextMarker"]
        return found

    found = having(model, use)
    assert len(found) == pages
    assert max(map(len, found)) <= 100
    assert [each for page in found for each in page] == [view(number).mapping for number in range(240)]


def test_changes_between_pages_neither_repeat_nor_hide_a_mapping() -> None:
    model = filled(*(view(number) for number in range(0, 40, 2)))

    async def use(run: Running) -> list[str]:
        _, first, _ = await run.exact("GET", f"{ROOT}?MaxItems=10")
        for number in (0, 18, 20):
            del model.known[view(number).mapping]
        for number in (1, 39):
            model.known[view(number).mapping] = view(number)
        marker = json.loads(first)["NextMarker"]
        _, rest, _ = await run.exact("GET", f"{ROOT}?Marker={marker}")
        return ids(first) + ids(rest)

    shown = [view(number).mapping for number in (*range(0, 20, 2), *range(22, 40, 2), 39)]
    assert having(model, use) == shown


@pytest.mark.parametrize(
    "marker", ["a", "%00", "AAAA", "=", "a" * 500, "%FF", "MTIz", "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"]
)
def test_a_marker_that_no_answer_had_is_refused(marker: str) -> None:
    status, found, _ = asked(one(), "GET", f"{ROOT}?Marker={marker}")
    assert (status, json.loads(found)) == (400, {"Type": "User", "message": paging.BAD_MARKER})


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_tags_of_an_unknown_mapping_are_not_there(method: str) -> None:
    arn = ARN.replace(ID, OTHER)
    sent = {"json": {"Tags": {"a": "b"}}} if method == "POST" else {}
    status, found, _ = asked(one(), method, f"/2017-03-31/tags/{arn}?tagKeys=a", **sent)
    assert (status, json.loads(found)) == (
        404,
        {"Type": "User", "Message": f"Event source mapping not found: {arn}"},
    )


@pytest.mark.parametrize("arn", [ARN.replace("eu-west-1", "eu-west-2"), ARN.replace("1111", "2222")])
def test_tags_of_another_region_or_account_are_not_there(arn: str) -> None:
    assert asked(one(), "GET", f"/2017-03-31/tags/{arn}")[0] == 404


def test_tags_of_other_resources_are_not_there() -> None:
    status, found, _ = asked(one(), "GET", f"/2017-03-31/tags/{FUNCTION}")
    assert (status, json.loads(found)["Message"]) == (404, f"Resource not found: {FUNCTION}")


@pytest.mark.parametrize(
    "arn", ["a", ARN + "0", ARN[4:], "arn%3Aaws%3Asqs%3Aeu-west-1%3A111122223333%3Aorders", ID]
)
def test_tags_of_what_is_no_resource_are_refused(arn: str) -> None:
    status, found, headers = asked(one(), "GET", f"/2017-03-31/tags/{arn}")
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert (
        "at 'resource' failed to satisfy constraint: Member must satisfy regular"
        in json.loads(found)["message"]
    )


def test_what_is_no_resource_is_refused_with_the_pattern_that_aws_shows() -> None:
    pattern = (
        "arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:"
        "(function:[a-zA-Z0-9-_]+(:(\\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-[a-z0-9]{17}|"
        "event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|"
        "capacity-provider:[a-zA-Z0-9-_]+)"
    )
    _, found, _ = asked(one(), "GET", f"/2017-03-31/tags/{QUEUE}")
    assert json.loads(found)["message"] == (
        f"1 validation error detected: Value '{QUEUE}' at 'resource' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern}"
    )


@pytest.mark.parametrize("rest", ["layer:tools", "capacity-provider:" + "c" * 65, "function:reader:live"])
def test_resources_of_other_kinds_are_resources_that_are_not_there(rest: str) -> None:
    arn = f"arn:aws:lambda:eu-west-1:111122223333:{rest}"
    status, found, _ = asked(one(), "GET", f"/2017-03-31/tags/{arn}")
    assert (status, json.loads(found)["Message"]) == (404, f"Resource not found: {arn}")


@pytest.mark.parametrize(
    ("method", "query", "sent", "text"),
    [
        ("POST", "", {}, "Value null at 'tags' failed to satisfy constraint: Member must not be null"),
        ("POST", "", {"Tags": {"": "a"}}, "Map keys must satisfy constraint"),
        ("POST", "", {"Tags": {"a" * 129: "a"}}, "Map keys must satisfy constraint"),
        ("POST", "", {"Tags": {"a": "a" * 257}}, "Map value must satisfy constraint"),
        ("POST", "", {"Tags": {"": "a" * 257}}, "2 validation errors detected"),
        ("DELETE", "", None, "Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"),
    ],
)
def test_tags_out_of_range_are_refused(method: str, query: str, sent: Any, text: str) -> None:
    model = one()
    status, found, headers = asked(model, method, TAGS + query, json=sent)
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert text in json.loads(found)["message"]
    assert model.asked == []


def test_tags_of_a_new_mapping_have_the_same_bounds() -> None:
    status, found, _ = asked(MappingModel(), "POST", ROOT, json={**ON_QUEUE, "Tags": {"": "a"}})
    assert (status, "Map keys must satisfy constraint" in json.loads(found)["message"]) == (400, True)


def test_head_answers_without_a_body() -> None:
    status, found, headers = asked(one(), "HEAD", f"{ROOT}/{ID}")
    assert (status, found, int(headers["Content-Length"])) == (200, b"", len(QUEUE_BODY))
