"""Owns the checks of streams and queues: each permission is tried by a call that takes no record or message from anybody."""

from collections.abc import Mapping
from typing import Any

from adapters.aws.calls import understood
from adapters.aws.permission_checks import ALLOW, Trial, asked, for_the_check_alone, tried, untried
from poller.domain.errors import CursorExpired, PositionTrimmed, ResourceMissing
from poller.domain.findings import Finding, LambdaConsumer, Severity
from poller.domain.records import Cursor, JsonObject, Position, QueueFacts, Shard, ShardId, Undone
from poller.domain.untrusted.texts import line_of
from poller.ports import QueueSource, StreamSource

NO_RECEIPT = "poller-check-has-no-such-receipt"
"""A receipt that no message has. SQS checks the permission first, and then refuses the receipt."""
CONSUMER_PAGES_MAX = 10
CONSUMERS_PAGE = 100
STATUS_CHARS_MAX = 40


async def probe_stream(
    source: StreamSource, *, arn: str, service: str, listing: str, guess: str
) -> list[Finding]:
    """Lists the shards, gets an iterator, and reads one record, which stays in the stream.

    If listing is not allowed, the other calls are tried on the shard `guess`, which need not exist.
    """
    iterator, reading = f"{service}:GetShardIterator", f"{service}:GetRecords"
    listed = await tried(f"{service}:{listing}", source.shards(), on=arn)
    shard = ShardId(guess) if listed.denied else _open(listed)
    if shard is None:
        why = "the stream has no shard yet" if listed.error is None else "the stream could not be asked"
        return [listed.finding, *untried((iterator, reading), why)]
    granted = (ResourceMissing,) if listed.denied else ()
    token = await tried(iterator, source.cursor(shard, Position.horizon()), on=arn, granted=granted)
    return [listed.finding, token.finding, await _read(source, shard, token, reading=reading, on=arn)]


def still_written(over: str, *, on: str) -> list[Finding]:
    """Returns a warning if the stream gets no more records, for the reason `over`; nothing if that is empty."""
    return [Finding("stream status", Severity.WARNING, f"{on}: {over}")] if over else []


def _open(listed: Trial[Any]) -> ShardId | None:
    """Returns a shard to read, an open one if there is one."""
    shards: list[Shard] = sorted(listed.answer or (), key=lambda each: each.closed)
    return shards[0].shard_id if shards else None


async def _read(
    source: StreamSource, shard: ShardId, token: Trial[Cursor], *, reading: str, on: str
) -> Finding:
    if token.answer is None:
        return untried((reading,), "there is no shard iterator to read with")[0]
    call = source.read(shard, token.answer, records_max=1)
    return (await tried(reading, call, on=on, granted=(CursorExpired, PositionTrimmed))).finding


class QueueProbe:
    """A Probe and ConsumerCheck of one queue; `lambda_client` lists AWS Lambda's own mappings of it."""

    def __init__(self, queue: QueueSource, lambda_client: Any, *, arn: str) -> None:
        self._queue = queue
        self._lambda = lambda_client
        self._arn = arn

    async def describe(self) -> QueueFacts:
        """Returns the queue's own settings; raises what the source's `describe` raises."""
        return await self._queue.describe()

    async def probe(self) -> list[Finding]:
        """Reads the queue's settings, and tries to delete and to hide a message that does not exist. Receives nothing."""
        described = await tried("sqs:GetQueueAttributes", self._queue.describe(), on=self._arn)
        receives = untried(("sqs:ReceiveMessage",), "a receive hides messages from others")
        others = ("sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
        if described.answer is None and not described.denied:
            return [described.finding, *receives, *untried(others, "the queue could not be asked")]
        deleted = await tried(others[0], self._queue.delete([NO_RECEIPT]), on=self._arn)
        hidden = await tried(others[1], self._queue.extend([NO_RECEIPT], visibility_s=0), on=self._arn)
        asked_for = [Finding("sqs:GetQueueUrl", Severity.OK), described.finding]
        return [*asked_for, *receives, _judged(deleted, self._arn), _judged(hidden, self._arn)]

    async def lambda_consumers(self) -> list[LambdaConsumer]:
        """Returns AWS Lambda's own event source mappings of this queue, a thousand at most."""
        found: list[LambdaConsumer] = []
        parameters: dict[str, Any] = {"EventSourceArn": self._arn, "MaxItems": CONSUMERS_PAGE}
        for _ in range(CONSUMER_PAGES_MAX):
            page = await asked(self._lambda, "ListEventSourceMappings", **parameters)
            with understood("lambda ListEventSourceMappings"):
                found += [_consumer(each) for each in page.get("EventSourceMappings") or ()]
            if page.get("NextMarker") in (None, "", parameters.get("Marker")):
                break
            parameters["Marker"] = page["NextMarker"]
        return found


def _consumer(wire: JsonObject) -> LambdaConsumer:
    texts = [wire.get(name) for name in ("UUID", "FunctionArn", "State")]
    return LambdaConsumer(*(text if isinstance(text, str) else "" for text in texts))


def _judged(trial: Trial[Any], arn: str) -> Finding:
    """Judges a call with a receipt that does not exist: a permitted call reports success, or that the receipt has expired."""
    undone: list[Undone] = [each for each in trial.answer or () if not each.lapsed]
    if not undone:
        return trial.finding
    check = trial.finding.check
    return Finding(
        check, Severity.WARNING, f"{check} on {arn}: answered {undone[0].reason}, which tells nothing"
    )


async def probe_kinesis(stream: StreamSource, *, arn: str) -> list[Finding]:
    """As `probe_stream`, and reads the retention period, without which the daemon works too."""
    found = await probe_stream(
        stream, arn=arn, service="kinesis", listing="ListShards", guess="shardId-000000000000"
    )
    action = "kinesis:DescribeStreamSummary"
    if found[1].grade is Severity.UNTRIED:
        return [*found, *untried((action,), "the stream could not be asked")]
    retention = await tried(action, stream.retention_s(), on=arn)
    if retention.error is None and retention.answer is None:
        text = f"{action} on {arn}: not allowed, so that it is not known how long records are kept"
        return [*found, Finding(action, Severity.WARNING, text, ALLOW)]
    return [*found, retention.finding]


async def probe_consumer(client: Any, parameters: Mapping[str, str], *, made: bool) -> list[Finding]:
    """Describes a consumer of a stream. `made`: the daemon registers it if there is none. Registers and subscribes nothing."""
    action, on = "kinesis:DescribeStreamConsumer", " of ".join(reversed(list(parameters.values())))
    call = asked(client, "DescribeStreamConsumer", **parameters)
    described = await tried(action, call, on=on, granted=(ResourceMissing,) if made else ())
    subscribed = untried(("kinesis:SubscribeToShard",), "it would end the subscription of a daemon that runs")
    if not made:
        found = for_the_check_alone(described, "whether there is such a consumer")
        return [found, *_not_active(described, on), *subscribed]
    missing = isinstance(described.error, ResourceMissing)
    why = "it would make a consumer, which costs money" if missing else "the consumer could not be asked for"
    if described.answer is not None:
        why = "the consumer is there"
    registered = untried(("kinesis:RegisterStreamConsumer",), why)
    return [described.finding, *registered, *_not_active(described, on), *subscribed]


def _not_active(described: Trial[Any], on: str) -> list[Finding]:
    """A warning about a consumer that cannot be subscribed with now."""
    answer = described.answer
    found = answer.get("ConsumerDescription") if isinstance(answer, dict) else None
    status = found.get("ConsumerStatus") if isinstance(found, dict) else None
    if answer is None or status == "ACTIVE":
        return []
    text = f"{on}: ConsumerStatus is {line_of(str(status), chars_max=STATUS_CHARS_MAX)}, so that records are polled until it is ACTIVE"
    return [Finding("consumer status", Severity.WARNING, text)]
