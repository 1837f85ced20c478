"""Owns facts of the SQS source, shown on scripted answers."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.aws.clients import client
from adapters.sources.sqs import ATTEMPT_S_MAX, SqsQueue
from adapters.sources.sqs_answers import read_answer
from poller.domain.errors import InvalidConfiguration, ResourceMissing, ServiceThrottled, ServiceUnavailable
from poller.domain.records import Epoch, Message, Monotonic, QueueFacts, Undone
from poller.plugins import InstalledPlugins, opened
from poller.rules.queues.message_encoder import SYSTEM_ATTRIBUTES, MessageEncoder
from tests.adapters.answers import TOO_DEEP, Answer, Service, environment, error, ok, on_a_loop, serving

pytestmark = pytest.mark.usefixtures("account")

ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
URL = ok(QueueUrl="https://queue/1")
GONE = error("QueueDoesNotExist", query="AWS.SimpleQueueService.NonExistentQueue")
LOST = Answer(b'{"Messages":[{"MessageId"', 200)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> Monotonic:
        return Monotonic(self.seconds)

    def now(self) -> Epoch:
        return Epoch(self.seconds)


@asynccontextmanager
async def scripted(
    arn: str = ARN, /, **script: Sequence[Answer]
) -> AsyncIterator[tuple[SqsQueue, Service, Clock]]:
    """The source over a scripted endpoint; GetQueueUrl is answered unless the script says otherwise."""
    async with serving({"GetQueueUrl": [URL], **script}) as service, environment(service.url) as env:
        clock = Clock()
        api = await client(env, "sqs", "eu-west-1")
        yield SqsQueue(api, api, clock, arn=arn), service, clock


def wire(**more: Any) -> dict[str, Any]:
    """A message as ReceiveMessage sends it."""
    return {
        "MessageId": "2e1424d4",
        "ReceiptHandle": "AQEB",
        "MD5OfBody": "21ff9cb04ec9866e06b89924760cc847",
        "Body": '{"id": 5}',
        "Attributes": {
            "SenderId": "AIDA",
            "ApproximateFirstReceiveTimestamp": "1767225600130",
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1767225600123",
        },
        **more,
    }


async def only_message(arn: str = ARN, **more: Any) -> Message:
    """The message that an answer with one message is read as."""
    async with scripted(arn, ReceiveMessage=[ok(Messages=[wire(**more)])]) as (queue, _, _):
        (message,) = await queue.receive(messages_max=10, wait_s=20)
    return message


def done(*ids: str, failed: Sequence[tuple[str, str]] = ()) -> Answer:
    """A batch answer: entries that went through, and entries that failed with a code."""
    return ok(
        Successful=[{"Id": each} for each in ids],
        Failed=[{"Id": each, "Code": code, "SenderFault": True, "Message": "words"} for each, code in failed],
    )


@on_a_loop
async def test_a_standard_message_has_what_events_show() -> None:
    message = await only_message()
    assert message.attributes == wire()["Attributes"]
    assert (message.group, message.receives, message.sent) == (None, 1, 1767225600.123)
    assert (message.message_id, message.receipt, message.body) == ("2e1424d4", "AQEB", '{"id": 5}')
    assert message.md5_of_body == "21ff9cb04ec9866e06b89924760cc847"
    assert (message.message_attributes, message.md5_of_message_attributes) == ({}, None)
    assert message.received == 1000.0


@on_a_loop
async def test_every_system_attribute_passes_on_whichever_kind_the_queue_is() -> None:
    given = {name: f"{name}'s value" for name in (*sorted(SYSTEM_ATTRIBUTES), "SomethingNew")}
    for arn, group in ((ARN, None), (f"{ARN}.fifo", "MessageGroupId's value")):
        message = await only_message(arn, Attributes=given)
        assert message.attributes == given
        assert message.group == group
        assert (message.receives, message.sent) == (0, 0.0), "no count and no time"


@on_a_loop
async def test_a_tenant_of_a_standard_queue_is_no_message_group() -> None:
    tenant = {"Attributes": wire()["Attributes"] | {"MessageGroupId": "tenant"}}
    standard, fifo = await only_message(**tenant), await only_message(f"{ARN}.fifo", **tenant)
    assert (standard.group, standard.attributes["MessageGroupId"]) == (None, "tenant")
    assert fifo.group == "tenant"


@on_a_loop
async def test_messages_of_a_fifo_queue_that_name_no_group_are_one_group() -> None:
    assert (await only_message(f"{ARN}.fifo")).group == ""


@on_a_loop
async def test_message_attributes_have_one_scalar_and_two_empty_lists() -> None:
    attributes = {
        "text": {"StringValue": "v", "DataType": "String"},
        "number": {"StringValue": "12.34", "DataType": "Number.float"},
        "bytes": {"BinaryValue": "/wA=", "DataType": "Binary"},
    }
    message = await only_message(MessageAttributes=attributes, MD5OfMessageAttributes="d056c4")
    assert json.dumps(message.message_attributes, separators=(",", ":")) == (
        '{"text":{"stringValue":"v","stringListValues":[],"binaryListValues":[],"dataType":"String"},'
        '"number":{"stringValue":"12.34","stringListValues":[],"binaryListValues":[],"dataType":"Number.float"},'
        '"bytes":{"binaryValue":"/wA=","stringListValues":[],"binaryListValues":[],"dataType":"Binary"}}'
    )
    assert message.md5_of_message_attributes == "d056c4"


@on_a_loop
async def test_a_receive_asks_for_all_that_events_need_and_stays_within_the_limits() -> None:
    async with scripted(ReceiveMessage=[ok(), ok(Messages=[])]) as (queue, service, _):
        assert list(await queue.receive(messages_max=50, wait_s=60.0)) == []
        assert list(await queue.receive(messages_max=3, wait_s=0.9)) == []
        first, second = service.parameters("ReceiveMessage")
        assert first == {
            "QueueUrl": "https://queue/1",
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": 20,
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        assert (second["MaxNumberOfMessages"], second["WaitTimeSeconds"]) == (3, 0)
        assert service.parameters("GetQueueUrl") == [
            {"QueueName": "orders", "QueueOwnerAWSAccountId": "111122223333"}
        ]


@on_a_loop
async def test_a_fifo_receive_whose_answer_was_lost_is_repeated_under_its_attempt_id() -> None:
    script = {"ReceiveMessage": [LOST, error("InternalFailure", status=500), ok(Messages=[wire()]), ok()]}
    async with scripted(f"{ARN}.fifo", **script) as (queue, service, clock):
        for seconds in (1000.0, 1010.0):
            clock.seconds = seconds
            with pytest.raises(ServiceUnavailable):
                await queue.receive(messages_max=10, wait_s=0)
        clock.seconds = 1020.0
        (message,) = await queue.receive(messages_max=10, wait_s=0)
        assert message.received == 1020.0, "repeating resets the visibility timeout"
        await queue.receive(messages_max=10, wait_s=0)
        ids = [given["ReceiveRequestAttemptId"] for given in service.parameters("ReceiveMessage")]
        assert ids[0] == ids[1] == ids[2] != ids[3]


@on_a_loop
async def test_an_attempt_id_is_not_repeated_for_another_size_nor_after_minutes() -> None:
    async with scripted(f"{ARN}.fifo", ReceiveMessage=[LOST, ok(), ok()]) as (queue, service, clock):
        with pytest.raises(ServiceUnavailable):
            await queue.receive(messages_max=10, wait_s=0)
        await queue.receive(messages_max=5, wait_s=0)
        clock.seconds += ATTEMPT_S_MAX
        await queue.receive(messages_max=10, wait_s=0)
        ids = {given["ReceiveRequestAttemptId"] for given in service.parameters("ReceiveMessage")}
        assert len(ids) == 3


@on_a_loop
async def test_a_standard_receive_has_no_attempt_id() -> None:
    async with scripted(ReceiveMessage=[LOST, ok()]) as (queue, service, _):
        with pytest.raises(ServiceUnavailable):
            await queue.receive(messages_max=10, wait_s=0)
        await queue.receive(messages_max=10, wait_s=0)
        assert all("ReceiveRequestAttemptId" not in given for given in service.parameters("ReceiveMessage"))


@on_a_loop
async def test_deletes_go_by_ten() -> None:
    ids = [str(number) for number in range(10)]
    async with scripted(DeleteMessageBatch=[done(*ids)] * 3) as (queue, service, _):
        assert list(await queue.delete([f"r{number}" for number in range(23)])) == []
        sizes = sorted(len(given["Entries"]) for given in service.parameters("DeleteMessageBatch"))
        assert sizes == [3, 10, 10]


@pytest.mark.parametrize(
    ("code", "lapsed"),
    [
        ("ReceiptHandleIsInvalid", True),
        ("InvalidParameterValue", True),
        ("AWS.SimpleQueueService.MessageNotInflight", True),
        ("InternalError", False),
        ("RequestThrottled", False),
    ],
)
@on_a_loop
async def test_what_a_batch_leaves_undone_says_whether_trying_again_is_useless(
    code: str, lapsed: bool
) -> None:
    answer = done("0", failed=[("1", code)])
    script = {"DeleteMessageBatch": [answer], "ChangeMessageVisibilityBatch": [answer]}
    async with scripted(ARN, **script) as (queue, service, _):
        reason = code.rpartition(".")[2]
        assert list(await queue.delete(["a", "b"])) == [Undone("b", reason, lapsed)]
        assert list(await queue.extend(["a", "b"], visibility_s=30)) == [Undone("b", reason, lapsed)]
        entries = service.parameters("ChangeMessageVisibilityBatch")[0]["Entries"]
        assert entries[1] == {"Id": "1", "ReceiptHandle": "b", "VisibilityTimeout": 30}


@on_a_loop
async def test_messages_with_different_times_share_calls_of_ten() -> None:
    answers = [done(*(str(number) for number in range(count))) for count in (10, 2)]
    async with scripted(ARN, ChangeMessageVisibilityBatch=answers) as (queue, service, _):
        receipts = [f"r{number}" for number in range(12)]
        assert list(await queue.extend(receipts, visibility_s=range(12))) == []
        calls = service.parameters("ChangeMessageVisibilityBatch")
    sent = [(each["ReceiptHandle"], each["VisibilityTimeout"]) for call in calls for each in call["Entries"]]
    assert sorted(sent) == sorted((f"r{number}", number) for number in range(12))
    assert sorted(len(call["Entries"]) for call in calls) == [2, 10]


@on_a_loop
async def test_an_entry_that_the_answer_forgets_is_undone() -> None:
    async with scripted(DeleteMessageBatch=[ok()]) as (queue, _, _):
        assert list(await queue.delete(["a"])) == [Undone("a", "no answer", lapsed=False)]


@on_a_loop
async def test_one_failed_call_of_several_leaves_only_its_messages_undone() -> None:
    ids = [str(number) for number in range(10)]
    script = [done(*ids), error("RequestThrottled", status=403), done(*ids)]
    async with scripted(DeleteMessageBatch=script) as (queue, _, _):
        undone = await queue.delete([f"r{number}" for number in range(30)])
        assert len(undone) == 10
        assert {one.lapsed for one in undone} == {False}
        assert {one.reason for one in undone} == {"sqs DeleteMessageBatch: RequestThrottled (HTTP 403)"}


@on_a_loop
async def test_when_every_call_fails_the_error_is_raised() -> None:
    async with scripted(DeleteMessageBatch=[error("RequestThrottled")] * 2) as (queue, _, _):
        with pytest.raises(ServiceThrottled):
            await queue.delete([f"r{number}" for number in range(20)])


@on_a_loop
async def test_the_url_is_asked_once_and_again_when_the_queue_was_gone() -> None:
    other = ok(QueueUrl="https://queue/2")
    script = {"GetQueueUrl": [URL, other], "ReceiveMessage": [ok(), GONE, ok()]}
    async with scripted(ARN, **script) as (queue, service, _):
        await queue.receive(messages_max=1, wait_s=0)
        with pytest.raises(ResourceMissing):
            await queue.receive(messages_max=1, wait_s=0)
        await queue.receive(messages_max=1, wait_s=0)
        urls = [given["QueueUrl"] for given in service.parameters("ReceiveMessage")]
        assert urls == ["https://queue/1", "https://queue/1", "https://queue/2"]


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        ({"VisibilityTimeout": "30"}, QueueFacts(30, fifo=False)),
        ({"VisibilityTimeout": "0", "FifoQueue": "true"}, QueueFacts(0, fifo=True)),
        (
            {"VisibilityTimeout": "30", "RedrivePolicy": '{"deadLetterTargetArn":"x","maxReceiveCount":"5"}'},
            QueueFacts(30, fifo=False, redrive_receives_max=5),
        ),
        ({"VisibilityTimeout": "30", "RedrivePolicy": "{not json"}, QueueFacts(30, fifo=False)),
        ({"VisibilityTimeout": "30", "RedrivePolicy": "[]"}, QueueFacts(30, fifo=False)),
        ({"VisibilityTimeout": "30", "RedrivePolicy": "[" * 20_000}, QueueFacts(30, fifo=False)),
        (
            {"VisibilityTimeout": "30", "RedrivePolicy": '{"maxReceiveCount":null}'},
            QueueFacts(30, fifo=False),
        ),
    ],
)
@on_a_loop
async def test_a_queue_describes_itself(attributes: dict[str, str], facts: QueueFacts) -> None:
    async with scripted(GetQueueAttributes=[ok(Attributes=attributes)]) as (queue, _, _):
        assert await queue.describe() == facts


@pytest.mark.parametrize("messages", [{"a": 1}, "x"], ids=str)
@on_a_loop
async def test_an_answer_that_is_not_as_documented_is_unavailable(messages: Any) -> None:
    async with scripted(ReceiveMessage=[ok(Messages=messages)]) as (queue, _, _):
        with pytest.raises(ServiceUnavailable):
            await queue.receive(messages_max=1, wait_s=0)


@on_a_loop
async def test_an_answer_that_is_too_deep_to_be_read_is_unavailable() -> None:
    async with scripted(ReceiveMessage=[ok(), TOO_DEEP]) as (queue, _, _):
        await queue.receive(messages_max=1, wait_s=0)
        with pytest.raises(ServiceUnavailable, match="RecursionError"):
            await queue.receive(messages_max=1, wait_s=0)


@on_a_loop
async def test_long_polls_have_connections_of_their_own() -> None:
    async with (
        environment("http://127.0.0.1:1") as env,
        opened(InstalledPlugins(), "sources", "sqs", {"arn": ARN}, env) as queue,
    ):
        assert queue._receives._client is not queue._deletes._client


@on_a_loop
async def test_a_queue_url_is_not_an_arn() -> None:
    async with environment(None) as env:
        with pytest.raises(InvalidConfiguration) as caught:
            opened(InstalledPlugins(), "sources", "sqs", {"arn": "https://sqs/orders"}, env)
    assert caught.value.problems == [
        "sources sqs: arn: value 'https://sqs/orders': is not the ARN of an SQS queue; "
        "write arn:aws:sqs:REGION:ACCOUNT:NAME"
    ]


TEXTS = st.text(max_size=20) | st.sampled_from(["\ud800", "\x00\x1f", "\U0001f600", '"\\'])
WIRES = st.lists(
    st.fixed_dictionaries(
        {"MessageId": TEXTS, "ReceiptHandle": TEXTS, "Body": TEXTS},
        optional={
            "Attributes": st.dictionaries(TEXTS, TEXTS, max_size=3),
            "MD5OfBody": TEXTS,
            "MD5OfMessageAttributes": TEXTS,
            "MessageAttributes": st.dictionaries(
                TEXTS,
                st.none()
                | st.fixed_dictionaries(
                    {}, optional={"StringValue": TEXTS, "BinaryValue": TEXTS, "DataType": TEXTS}
                ),
                max_size=3,
            ),
        },
    ),
    max_size=3,
)


@given(WIRES, st.booleans(), st.booleans())
def test_no_message_of_an_answer_takes_more_in_an_event_than_the_answer_allows(
    wires: list[dict[str, Any]], fifo: bool, ascii_only: bool
) -> None:
    text = json.dumps({"Messages": wires}, separators=(",", ":"), ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = json.dumps({"Messages": wires}, separators=(",", ":")).encode()
    for windowed in (False, True):
        encoder = MessageEncoder(source_arn=ARN, region="eu-west-1", windowed=windowed)
        for message in read_answer(body, Monotonic(0.0), fifo=fifo):
            if not message.unreadable:
                size = len(encoder.encode(message))
                assert message.answer_bytes == len(body)
                assert size <= encoder.bytes_max_of_any(len(body))
                assert size <= encoder.bytes_max(message)
