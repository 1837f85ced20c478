"""Owns peeking at a shard: it reads a few records of a mapping's source, and leaves everything as it is.

The source is opened for each peek as the mapping has it, so that peeking works on each worker and for disabled mappings, too. Reads
are paced together with those of the daemon. Where the mapping stands and what blocks it comes from the store, because another
worker may have the shard.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from poller.config.plugin_specs import source_of
from poller.domain.errors import InvalidConfiguration, PortError, ResourceMissing, ServiceThrottled
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import LIMIT_MAX, PeekAnswer, PeekRequest
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import ShardId
from poller.domain.rows import Lease
from poller.plugins import Environment, Registry
from poller.ports import LeaseStore, StreamSource
from poller.rules.peeking.faults import stored_faults
from poller.rules.peeking.starts import FromFault, PeekStart, UnknownStart, parse_start
from poller.rules.target_names import NamedMapping, UnknownTarget, find_mapping, find_shard
from poller.runtime.peeking.look import LookContext, look

PEEK_S_MAX = 8.0
"""How long one peek may take. The API gives up after ten seconds."""
PEEKS_AT_ONCE = 2
"""Peeks that run at once in this daemon. Others wait."""
QUEUE = (
    "the source of this mapping is a queue: to look at its messages they would have to be received, which counts as a receive of "
    "each; `poller dry-run --config FILE --mapping {mapping} --receive` does that, where you want it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """PeekControl of one daemon. `plans` gives all mappings, disabled ones included."""

    plans: Callable[[], Sequence[MappingPlan]]
    leases: LeaseStore
    registry: Registry
    env: Environment
    running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PEEKS_AT_ONCE))

    async def peek(self, mapping: str, request: PeekRequest) -> PeekAnswer:
        """Reads a few records; raises ApiError."""
        plan = self._plan(mapping)
        if plan.kind is SourceKind.SQS:
            raise ApiError(ApiErrorType.CONFLICT, QUEUE.format(mapping=plan.mapping))
        if not 1 <= request.limit <= LIMIT_MAX:
            raise ApiError(ApiErrorType.PARAMETER, f"limit: is not 1 to {LIMIT_MAX}")
        try:
            start = parse_start(request.start)
        except UnknownStart as error:
            raise ApiError(ApiErrorType.PARAMETER, f"from: {error}") from None
        with _api_errors(plan):
            async with (
                asyncio.timeout(PEEK_S_MAX),
                self.running,
                source_of(plan).opened(self.registry, self.env) as source,
            ):
                return await self._look(plan, start, request, source)

    async def _look(
        self, plan: MappingPlan, start: PeekStart, request: PeekRequest, source: StreamSource
    ) -> PeekAnswer:
        leases = {each.shard: each for each in await self.leases.leases(plan.mapping)}
        shard = await _shard(request.shard, start, leases, source)
        context = LookContext(plan=plan, source=source, env=self.env, shard=shard, lease=leases.get(shard))
        return await look(context, start, limit=request.limit, payloads=request.payloads)

    def _plan(self, text: str) -> MappingPlan:
        plans = {each.mapping: each for each in self.plans()}
        named = [
            NamedMapping(mapping=each.mapping, function=each.function_arn, source_arn=each.source_arn)
            for each in plans.values()
        ]
        try:
            return plans[find_mapping(text, named).mapping]
        except UnknownTarget as error:
            raise ApiError(ApiErrorType.MISSING, str(error)) from None


async def _shard(
    text: str, start: PeekStart, leases: Mapping[ShardId, Lease], source: StreamSource
) -> ShardId:
    """The shard that is meant. Without a name it is the only one, or the only one that is blocked. Raises ApiError."""
    if ShardId(text) in leases:
        return ShardId(text)
    blocked = [shard for shard, lease in leases.items() if stored_faults(lease.checkpoint).blocked]
    if not text and len(blocked) == 1 and isinstance(start, FromFault):
        return blocked[0]
    known = {*leases, *(each.shard_id for each in await source.shards())}
    if not text and len(known) == 1:
        return known.pop()
    try:
        return find_shard(text, known)
    except UnknownTarget as error:
        raise ApiError(ApiErrorType.MISSING, f"shard: {error}") from None


@contextmanager
def _api_errors(plan: MappingPlan) -> Iterator[None]:
    """Turns the errors of ports into ApiError."""
    try:
        yield
    except ServiceThrottled as error:
        raise ApiError(ApiErrorType.THROTTLED, f"{error.reason}; try again in some seconds") from error
    except ResourceMissing as error:
        raise ApiError(ApiErrorType.MISSING, error.reason) from error
    except PortError as error:
        raise ApiError(ApiErrorType.SERVICE, f"the records could not be read: {error.reason}") from error
    except InvalidConfiguration as error:
        raise ApiError(
            ApiErrorType.SERVICE, f"mapping {plan.mapping}: {'; '.join(error.problems)}"
        ) from error
    except TimeoutError as error:
        text = f"no answer within {PEEK_S_MAX:g} s; try again, with a sequence number or TRIM_HORIZON as the position"
        raise ApiError(ApiErrorType.SERVICE, text) from error
