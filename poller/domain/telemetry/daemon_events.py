"""Owns the telemetry events of functions and of the daemon as a whole."""

from poller.domain.access import Role
from poller.domain.functions.queued_calls import CallEnd
from poller.domain.functions.shifts import ShiftState
from poller.domain.invocations import Ended
from poller.domain.records import MappingId, ShardId
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.labels import (
    ApiOperation,
    BreakerState,
    Listener,
    RefusedFor,
    TaskEnd,
    TaskKind,
)


class Capacity(TelemetryEvent, frozen=True, kw_only=True):
    """How many invocations of a function run now, and how many may run at once (None: no limit)."""

    function: str
    in_flight: int
    limit: int | None


class MemoryUsed(TelemetryEvent, frozen=True, kw_only=True):
    """Bytes that are held in memory for records and messages, or reserved for calls of sources; of `limit`. `waiting` calls have no room."""

    used: int
    limit: int
    waiting: int


class FunctionChanged(TelemetryEvent, frozen=True, kw_only=True):
    """The settings of a function at its service changed. The engine now waits up to `limit_s` for a call.

    `known` is False while the service does not give the settings. `reason` says why, or why the function does not run as it should.
    """

    function: str
    function_arn: str
    limit_s: float
    known: bool
    reason: str = ""


class FunctionOpened(TelemetryEvent, frozen=True, kw_only=True):
    """A function can be called now, with up to `calls_at_once` calls at once (None: any number). `reason` says why."""

    function: str
    invoker: str
    calls_at_once: int | None
    reason: str


class FunctionCalled(TelemetryEvent, frozen=True, kw_only=True):
    """A function was called through the Invoke API, and this is how the call ended. `error` is one line, or empty."""

    function: str
    request_id: str
    ended: Ended
    duration_s: float
    error: str = ""


class VersionCalled(TelemetryEvent, frozen=True, kw_only=True):
    """A version of a function was called, by `alias` or without one (empty). `failed`: it was not reached, timed out, or failed."""

    function: str
    alias: str
    version: str
    failed: bool


class AliasWeight(TelemetryEvent, frozen=True, kw_only=True):
    """The share of an alias's calls that go to a version has changed; 0 if none do any more."""

    function: str
    alias: str
    version: str
    weight: float


class ShiftChanged(TelemetryEvent, frozen=True, kw_only=True):
    """A shift of an alias to another version has begun, went on or ended. `reason` says why it was rolled back, or is empty."""

    function: str
    alias: str
    old: str
    new: str
    state: ShiftState
    reason: str = ""


class QueuedCallEnded(TelemetryEvent, frozen=True, kw_only=True):
    """An asynchronous call is over, and its destinations have it. `age_s` is from its acceptance to its end. `error` is one line, or empty."""

    function: str
    request_id: str
    end: CallEnd
    attempts: int
    age_s: float
    error: str = ""


class CallDeliveryFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A destination could not be given an asynchronous call that is over. It is tried again."""

    function: str
    request_id: str
    destination: str
    error: str
    reason: str


class CallsWaiting(TelemetryEvent, frozen=True, kw_only=True):
    """How many asynchronous calls of a function the store has, and how old the oldest one is."""

    function: str
    calls: int
    oldest_s: float


class CodeReloaded(TelemetryEvent, frozen=True, kw_only=True):
    """The code of a function changed, and was taken up (`ok`) or refused. `reason` says why, or is empty; `version` counts from 0.

    `ok` without a new version: the files hold the running code again, after other code was refused.
    """

    function: str
    ok: bool
    version: int
    reason: str = ""


class BreakerChanged(TelemetryEvent, frozen=True, kw_only=True):
    """The circuit breaker of a function is in this state from now on. `reason` is one line, empty when the function was opened.

    `next_try_s` is set for an open breaker: after so many seconds one batch tries. `gone`: there is no such breaker any more, because the
    function is closed, or opened with other settings. It holds no calls then, so its state is closed.
    """

    function: str
    state: BreakerState
    reason: str = ""
    next_try_s: float | None = None
    gone: bool = False


class CallLeftBehind(TelemetryEvent, frozen=True, kw_only=True):
    """A call of a function did not end when it was cancelled, and goes on in the background. `calls` is how many such calls there are now."""

    function: str
    calls: int


class ConfigurationReloaded(TelemetryEvent, frozen=True, kw_only=True):
    """The configuration file changed, and the daemon took it over (`ok`) or refused it. `reason` is empty or one line.

    `changes` has one line for each difference.
    """

    ok: bool
    reason: str = ""
    changes: tuple[str, ...] = ()


class ConfigurationUnread(TelemetryEvent, frozen=True, kw_only=True):
    """The configuration file changed, but cannot be read now, for a reason that is not the file's. It is read again every `wait_s`."""

    reason: str
    wait_s: float


class StoreFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A call to the store failed that belongs to no mapping. `error` is the class name of the exception."""

    error: str
    reason: str
    wait_s: float


class TaskEnded(TelemetryEvent, frozen=True, kw_only=True):
    """A task of the engine ended although nothing had stopped it. It is started again, alone or with its mapping.

    `name` is its kind and what it belongs to. `reason` is the error that ended it, on one line, or empty.
    """

    task: TaskKind
    name: str
    end: TaskEnd
    mapping: MappingId | None
    reason: str = ""


class StrangerRefused(TelemetryEvent, frozen=True, kw_only=True):
    """A request was refused because of its sender. `function` is the function whose call it asked for, `uid` the sender's user if known."""

    listener: Listener
    reason: RefusedFor
    function: str = ""
    uid: int | None = None


class FleetSized(TelemetryEvent, frozen=True, kw_only=True):
    """This worker knows that there should be `wanted` workers in place of `workers`, or that this has changed. `reason` is one line."""

    wanted: int
    workers: int
    reason: str


class LoopBlocked(TelemetryEvent, frozen=True, kw_only=True):
    """The event loop stood still, because code ran on it without `await`. `place` is where that code was, or empty."""

    blocked_s: float
    place: str = ""


class ObserverFailed(TelemetryEvent, frozen=True, kw_only=True):
    """An observer raised while it took an event. `observer` is the name of its class."""

    observer: str
    reason: str


class ApiChange(TelemetryEvent, frozen=True, kw_only=True):
    """A request to change something through the API. `refused` is empty, or says on one line why it was refused.

    `broken_off`: the request was aborted, and nothing was changed or refused.

    `who` is an access key id, the name of a token, or `unauthenticated`; `role` is None for the last. `address` is the client's address.
    `changes` are `NAME: OLD -> NEW`; for a refused request they are the names of its members. `operation_id` is the id of the
    operation on what runs, if the request is about one.
    """

    operation: ApiOperation
    who: str
    role: Role | None = None
    address: str
    mapping: str = ""
    operation_id: str = ""
    changes: tuple[str, ...] = ()
    refused: str = ""
    broken_off: bool = False


class PayloadsShown(TelemetryEvent, frozen=True, kw_only=True):
    """Somebody looked at records of a shard through the API and saw their payloads. Nothing was changed.

    `who`, `role` and `address` are as in ApiChange. `first` and `last` are sequence numbers, empty if there was no record. Of asynchronous
    calls of a function, `mapping` is `calls/` with its name, there is no shard, and they are ids of calls.
    """

    who: str
    role: Role | None = None
    address: str
    mapping: MappingId
    shard: ShardId
    records: int
    first: str = ""
    last: str = ""


class DaemonStarting(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` listens on its port and begins. The event has its version, its settings, and how many calls of each function can run."""

    version: str
    configuration: str
    """The file; empty without one."""
    worker: str
    store: str
    listen: str
    region: str
    endpoints: tuple[str, ...]
    """The configured URLs that replace AWS's own endpoints."""
    mappings: int
    """How many mappings the file has. More may have been made through the API."""
    functions: tuple[str, ...]


class StopCutShort(TelemetryEvent, frozen=True, kw_only=True):
    """A daemon ended before all its work was finished: its grace time was over, or too short for the received messages.

    `calls_cut_off` were cancelled, and their batches will be delivered again; `cut_off` has one text for each mapping of such calls.
    `handed_back` messages were made visible again without a try. `shards_released` go on at their checkpoints, here or elsewhere.
    """

    grace_s: float
    calls_cut_off: int
    cut_off: tuple[str, ...] = ()
    handed_back: int
    shards_released: int


class DaemonEnded(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` ends. The event says why, and gives totals of the whole run.

    `calls_cut_off` were cancelled. `handed_back` messages were made visible again after the stop.
    """

    reason: str
    exit_status: int
    ran_s: float
    calls: int
    calls_failed: int
    calls_cut_off: int
    records: int
    """Records that functions accepted."""
    discarded: int
    handed_back: int
