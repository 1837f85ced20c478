"""Owns how the records of a stream mapping are encoded for its function, and filtered."""

from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import DynamoRecord, KinesisRecord, Record, ShardId
from poller.ports import PushingSource
from poller.rules.events import DynamoEncoder, KinesisEncoder, RecordEncoder
from poller.rules.filtering import Answer, Filter, is_light
from poller.rules.filtering.pages import Matches
from poller.runtime.streams.context import StreamContext


async def event_arn(parts: StreamContext) -> str:
    """The ARN that events name as that of their source: the mapping's, or that of the consumer that it has of its own."""
    source = parts.source
    own = await source.event_arn() if isinstance(source, PushingSource) else ""
    return own or parts.plan.source_arn


def encoder(plan: MappingPlan, shard: ShardId, *, role_arn: str, source_arn: str) -> RecordEncoder:
    """The encoder for a shard's records. `source_arn` is the ARN that events name."""
    if plan.kind is SourceKind.KINESIS:
        return KinesisEncoder(shard=shard, source_arn=source_arn, region=plan.region, role_arn=role_arn)
    return DynamoEncoder(source_arn=source_arn, region=plan.region)


def matcher(parts: StreamContext) -> Matches | None:
    """The mapping's filters as a predicate on records; None when it has none."""
    plan = parts.plan
    if plan.kind is SourceKind.KINESIS:
        return _kinesis_matcher(Filter.of(plan.filters, "kinesis"))
    encoder = DynamoEncoder(source_arn=plan.source_arn, region=plan.region)
    return _dynamo_matcher(Filter.of(plan.filters, "dynamodb"), encoder)


def _kinesis_matcher(criteria: Filter | None) -> Matches | None:
    if criteria is None:
        return None

    def matches(record: Record) -> Answer:
        assert isinstance(record, KinesisRecord)
        return criteria.matches_kinesis(record.key, record.outer, record.arrived, record.data)

    return matches


def _dynamo_matcher(criteria: Filter | None, encoder: DynamoEncoder) -> Matches | None:
    if criteria is None:
        return None

    def matches(record: Record) -> Answer:
        assert isinstance(record, DynamoRecord)
        change = record.change
        if not (is_light(change.new_image) and is_light(change.old_image)):
            return criteria.search_dynamodb(encoder.encode(record))
        return criteria.matches_dynamodb(encoder.view(record))

    return matches
