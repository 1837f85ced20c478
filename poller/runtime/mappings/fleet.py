"""Owns what this worker reads of the others for the view of all workers: their digests, and the leases of streams.

It reads when somebody asks for the view, and not again within a second or two. Beside that it reads the digests in half a minute,
for how many workers there should be. A store that does not answer makes the view older, and the ages say so.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from poller.domain.arns import Arn
from poller.domain.errors import PortError
from poller.domain.operations import OperatorPause
from poller.domain.plan import Tuning
from poller.domain.records import MappingId, Monotonic, WorkerId
from poller.domain.rows import DigestStore, Lease, MappingState
from poller.domain.sizing.fleet_size import WorkerLoad
from poller.domain.status import DaemonStatus, FunctionStatus, MappingStatus, UnknownWorker
from poller.domain.telemetry.labels import TaskKind
from poller.ports import LeaseStore
from poller.rules.workers import fleet_view, status_digest
from poller.rules.workers.fleet_breakers import functions_of_all
from poller.rules.workers.fleet_view import Fleet, KnownLeases
from poller.rules.workers.pauses import with_pauses
from poller.rules.workers.sizing.samples import MappingLoad
from poller.rules.workers.status_digest import StatusDigest
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.fleet_sizing import FleetSizing, HeardLoads
from poller.runtime.workers.heartbeat import Heartbeat
from poller.runtime.workers.status_digests import DigestWriter

DIGESTS_S = 1.0
"""Digests that were read less than this ago are not read again."""
LEASES_S = 2.0
"""The same for leases, which are one call for each mapping."""
REFRESH_S_MAX = 2.0
"""How long somebody who asks waits for the store."""
AGAIN_S = 2.0
"""For so long after a failure the store is not asked."""
READS_AT_ONCE = 8


@dataclass(slots=True)
class _ReadDigest:
    content: bytes
    digest: StatusDigest | None


@dataclass(frozen=True, slots=True)
class _ReadLeases:
    leases: Sequence[Lease]
    at: Monotonic


class FleetReader:
    """Reads the others' digests and the leases, and shows the statuses of all workers."""

    def __init__(self, tools: DaemonContext, heartbeat: Heartbeat, *, tuning: Tuning) -> None:
        self.pauses: Callable[[MappingId], Sequence[OperatorPause] | None] = _none
        """The pauses in force of a mapping, which every worker has from the store; None while they are not known."""
        self._store: LeaseStore = tools.store
        self._digest_store = tools.store if isinstance(tools.store, DigestStore) else None
        self._worker = tools.worker
        self._heartbeat = heartbeat
        self._clock = tools.env.clock
        self._observer = tools.observer
        self._fresh_s = max(fleet_view.FRESH_S, fleet_view.FRESH_BEATS * tuning.heartbeat_s)
        self._digests: dict[WorkerId, _ReadDigest] = {}
        self._digests_at: Monotonic | None = None
        self._leases: dict[MappingId, _ReadLeases] = {}
        self._turn = asyncio.Lock()
        self._not_before = Monotonic(0.0)

    def sizing(
        self, loads: Callable[[], Mapping[MappingId, MappingLoad]], *, leaves: Callable[[], bool]
    ) -> FleetSizing:
        """What recommends how many workers there should be, from the loads of this worker's mappings and the digests.

        `leaves` says whether this worker was asked to stop.
        """
        return FleetSizing(
            self._worker,
            loads=loads,
            refresh=partial(self.refresh, None),
            heard=self._heard_loads,
            leaves=leaves,
            clock=self._clock,
            observer=self._observer,
        )

    def _heard_loads(self) -> HeardLoads:
        """The loads of the others that are alive and do not leave."""
        others = self._heartbeat.others()
        staying = [each for each, report in others.alive.items() if not report.leaving]
        digests = {each: self._digests[each].digest for each in staying if each in self._digests}
        loads = {each: digest.load if (digest := digests.get(each)) else None for each in staying}
        reads = self._digest_store is not None and not self._alone
        return HeardLoads(
            loads=loads, fresh=self._new(others.listed) and (not reads or self._new(self._digests_at))
        )

    def _new(self, read_at: Monotonic | None) -> bool:
        return read_at is not None and self._clock.monotonic() - read_at <= self._fresh_s

    def writer(
        self,
        statuses: Callable[[], Sequence[MappingStatus]],
        functions: Callable[[], Sequence[FunctionStatus]],
        load: Callable[[], WorkerLoad],
    ) -> DigestWriter | None:
        """What writes this worker's own digest of these statuses; None if the store takes none."""
        if self._digest_store is None:
            return None
        return DigestWriter(
            self._digest_store,
            self._worker,
            statuses=statuses,
            functions=functions,
            load=load,
            heartbeat=self._heartbeat,
            clock=self._clock,
            observer=self._observer,
        )

    async def refresh(self, own: Sequence[MappingStatus] | None, *, only: MappingId | None = None) -> None:
        """Reads digests and leases that are not new, for REFRESH_S_MAX at most.

        `own` are this worker's mappings; without them no leases are read. With `only` the leases of this mapping alone are read.
        """
        async with self._turn:
            if self._alone or self._clock.monotonic() < self._not_before:
                return
            try:
                async with asyncio.timeout(REFRESH_S_MAX):
                    await self._read_digests()
                    if own is not None:
                        await self._read_leases(own, only)
            except (TimeoutError, PortError, ExceptionGroup):
                # A task that ended by itself was reported by its group.
                self._not_before = Monotonic(self._clock.monotonic() + AGAIN_S)

    def view(self, own: DaemonStatus, *, only: str = "") -> DaemonStatus:
        """This daemon's status with what is known of all workers. Raises UnknownWorker if none is called `only`."""
        fleet = self._fleet()
        workers = fleet_view.worker_statuses(fleet)
        mappings = fleet_view.merged(own.mappings, fleet)
        if only:
            names = [each.worker for each in workers]
            if only not in names:
                raise UnknownWorker(names)
            workers = tuple(each for each in workers if each.worker == only)
            mappings = fleet_view.limited(mappings, only)
        return replace(
            own,
            mappings=self.with_all_pauses(mappings),
            workers=workers,
            only=only,
            functions=functions_of_all(own.functions, fleet, only=only),
        )

    def with_all_pauses(self, statuses: Sequence[MappingStatus]) -> tuple[MappingStatus, ...]:
        """The statuses with the pauses in force."""
        return tuple(with_pauses(each, self.pauses(each.mapping) or ()) for each in statuses)

    def merged(self, own: Sequence[MappingStatus], *, leases: bool = False) -> dict[MappingId, MappingStatus]:
        """The mappings of `own` on all workers, as far as it is known now; without `leases` not what the leases say."""
        known = fleet_view.merged(own, self._fleet(leases=leases))
        return {each.mapping: each for each in known}

    @property
    def _alone(self) -> bool:
        return not self._heartbeat.others().sightings

    def _fleet(self, *, leases: bool = True) -> Fleet:
        now = self._clock.monotonic()
        digest_age_s = 0.0 if self._digests_at is None else now - self._digests_at
        others = fleet_view.heard_workers(
            self._heartbeat.others(),
            {worker: read.digest for worker, read in self._digests.items()},
            now=now,
            digest_age_s=digest_age_s,
            fresh_s=self._fresh_s,
        )
        known = {mapping: KnownLeases(read.leases, now - read.at) for mapping, read in self._leases.items()}
        return Fleet(
            me=self._worker,
            others=others,
            leases=known if leases and others else {},
            fresh_s=self._fresh_s,
        )

    async def _read_digests(self) -> None:
        now = self._clock.monotonic()
        fresh = self._digests_at is not None and now - self._digests_at < DIGESTS_S
        if self._digest_store is None or fresh:
            return
        found = {}
        for row in await self._digest_store.digests():
            before = self._digests.get(row.worker)
            known = before is not None and before.content == row.content
            found[row.worker] = (
                before
                if known and before is not None
                else _ReadDigest(row.content, status_digest.decode(row.content))
            )
        self._digests, self._digests_at = found, now

    async def _read_leases(self, own: Sequence[MappingStatus], only: MappingId | None) -> None:
        wanted = self._streams(own)
        self._leases = {mapping: read for mapping, read in self._leases.items() if mapping in wanted}
        now = self._clock.monotonic()
        due = [
            mapping
            for mapping in wanted
            if (only is None or mapping == only)
            and (mapping not in self._leases or now - self._leases[mapping].at >= LEASES_S)
        ]
        async with WatchedTasks(self._observer) as tasks:
            for first in range(min(READS_AT_ONCE, len(due))):
                tasks.start(TaskKind.FLEET, self._read_some(due[first::READS_AT_ONCE]), of=str(first))

    async def _read_some(self, mappings: Collection[MappingId]) -> bool:
        for mapping in mappings:
            try:
                asked = self._clock.monotonic()
                leases = await self._store.leases(mapping, memos=False)
            except PortError:
                # A row that cannot be read is a matter of this mapping alone; the lease of its worker says so, too.
                continue
            self._leases[mapping] = _ReadLeases(leases, asked)
        return True

    def _streams(self, own: Sequence[MappingStatus]) -> list[MappingId]:
        """The stream mappings that run on some worker, those with the oldest leases first."""
        digests = (read.digest for read in self._digests.values() if read.digest is not None)
        there = [each.status for digest in digests for each in digest.mappings]
        running = {
            each.mapping
            for each in (*own, *there)
            if each.state is not MappingState.DISABLED and not _is_queue(each)
        }
        return sorted(
            running, key=lambda each: (self._leases[each].at if each in self._leases else 0.0, each)
        )


def alone(own: DaemonStatus, *, only: str) -> DaemonStatus:
    """The view of a worker that knows no others, because its store is not open. Raises UnknownWorker."""
    if only not in {"", own.worker}:
        raise UnknownWorker([own.worker])
    return replace(own, only=only)


def _none(_mapping: MappingId) -> None:
    """Knows no pauses."""


def _is_queue(status: MappingStatus) -> bool:
    arn = Arn.read(status.source_arn)
    return arn is not None and arn.service == "sqs"
