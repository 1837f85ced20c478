"""Owns the words of telemetry events. They become labels of metrics, so each set is closed."""

from enum import StrEnum


class Loss(StrEnum):
    """How records were lost before they could be read."""

    TRIMMED = "trimmed"
    SHARD_GONE = "shard_gone"
    STREAM_REMADE = "stream_remade"


class Listener(StrEnum):
    """A socket that takes requests."""

    PORT = "port"
    """The daemon's own port (`listen`)."""
    RUNTIME_API = "runtime_api"
    """The runtime API, from which a function's processes fetch their calls."""


class RefusedFor(StrEnum):
    """Why the sender of a request was refused."""

    PEER = "peer"
    """The sender is not a process of the function."""
    HOST = "host"
    """The `Host` header is not a name of this server. A web page may have pointed its own name at this address (DNS rebinding)."""
    ORIGIN = "origin"
    """The request comes from a web page of another site."""
    CREDENTIAL = "credential"
    """A read without a valid token or signature. Changes without one are told as changes that were refused."""


class BreakerState(StrEnum):
    """The state of a function's circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    """No call begins."""
    HALF_OPEN = "half_open"
    """One batch tries."""


class SourceCall(StrEnum):
    """A call of AWS that a source makes, by AWS's name."""

    GET_RECORDS = "GetRecords"
    GET_SHARD_ITERATOR = "GetShardIterator"
    LIST_SHARDS = "ListShards"
    DESCRIBE_STREAM = "DescribeStream"
    DESCRIBE_STREAM_SUMMARY = "DescribeStreamSummary"
    SUBSCRIBE_TO_SHARD = "SubscribeToShard"
    DESCRIBE_STREAM_CONSUMER = "DescribeStreamConsumer"
    REGISTER_STREAM_CONSUMER = "RegisterStreamConsumer"
    RECEIVE_MESSAGE = "ReceiveMessage"
    DELETE_MESSAGE_BATCH = "DeleteMessageBatch"
    CHANGE_MESSAGE_VISIBILITY_BATCH = "ChangeMessageVisibilityBatch"
    GET_QUEUE_ATTRIBUTES = "GetQueueAttributes"
    GET_QUEUE_URL = "GetQueueUrl"
    SEND_MESSAGE = "SendMessage"
    """A copy for the dead-letter queue, when an operator skips a message."""


class TaskKind(StrEnum):
    """What a task of the engine is for."""

    MAPPING = "mapping"
    FUNCTION = "function"
    FUNCTION_FACTS = "function_facts"
    """Follows the settings of a function at its service."""
    FUNCTION_CALLS = "function_calls"
    """Keeps a function open for the Invoke API."""
    QUEUED_CALLS = "queued_calls"
    """Claims asynchronous calls that are due."""
    QUEUED_CALL = "queued_call"
    """Runs one asynchronous call."""
    CALL_DELIVERIES = "call_deliveries"
    """Opens the destinations of asynchronous calls."""
    VERSION = "version"
    """Keeps a version of a function open."""
    VERSIONS = "versions"
    """Opens the versions of a function to which its aliases lead."""
    SHIFTS = "shifts"
    """Carries out the shifts of aliases."""
    SHIFT_HOOK = "shift_hook"
    """Waits for a hook of a shift."""
    FUNCTION_CODE = "function_code"
    """Takes changed code of a function up."""
    HEARTBEAT = "heartbeat"
    RECONCILER = "reconciler"
    STATUS_DIGEST = "status_digest"
    """Writes what other workers show of this one."""
    FLEET_SIZING = "fleet_sizing"
    """Measures the load, and recommends how many workers there should be."""
    FLEET = "fleet"
    """Reads leases for the view of all workers."""
    CONTROL = "control"
    CONFIGURATION_FILE = "configuration_file"
    LOOP_WATCH = "loop_watch"
    RESOURCES = "resources"
    """Follows custom resources."""
    RESOURCE_MAPPINGS = "resource_mappings"
    """Makes mappings of custom resources."""
    RESOURCE_STATUS = "resource_status"
    """Writes the status of custom resources."""
    SUPERVISOR = "supervisor"
    """Speaks with the supervisor of several processes."""
    OPERATIONS = "operations"
    """Follows the operations of the store."""
    OPERATION = "operation"
    """Carries out one part of an operation."""
    TAKE = "take"
    SHARD = "shard"
    CHECKPOINTS = "checkpoints"
    READER = "reader"
    LANE = "lane"
    QUEUE_FACTS = "queue_facts"
    POLLER = "poller"
    POLL = "poll"
    """One receive beside a batch that gathers."""
    GROUPS = "groups"
    """Runs message groups of one batch at the same time as others."""
    DELETER = "deleter"
    DELETES = "deletes"
    """One worker of the deleter."""
    VISIBILITY = "visibility"
    SEEK = "seek"
    """Looks whether a seek leaves out records of a shard."""
    EXTENSION = "extension"
    """One call that changes the visibility of messages."""
    RETRY_DELAYS = "retry_delays"
    """Puts off the next try of failed messages of a queue."""


class TaskEnd(StrEnum):
    """How a task ended before its work was over."""

    RAISED = "raised"
    CANCELLED = "cancelled"
    RETURNED = "returned"


class ApiOperation(StrEnum):
    """The kind of change that a request to the API makes."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    TAG = "tag"
    UNTAG = "untag"
    ENABLE = "enable"
    DISABLE = "disable"
    OPERATE = "operate"
    """Asks for an operation on what runs."""
    CANCEL = "cancel"
    """Cancels an operation on what runs."""
    CLOSE_BREAKER = "close_breaker"
    CONFIGURE = "configure"
    """Sets how asynchronous calls of a function are tried."""
    ALIAS = "alias"
    """Creates, changes or deletes an alias of a function."""
    SHIFT = "shift"
    ROLL_BACK = "roll_back"
    """Ends a shift and sends all calls to the old version."""
    INVOKE = "invoke"
    """Only refused requests are reported."""


class Replayed(StrEnum):
    """What became of records that a replay has read."""

    PROCESSED = "processed"
    """The function has accepted them."""
    FILTERED = "filtered"
    FAILED = "failed"
    """A try failed. They are tried again, or given up."""
    SKIPPED = "skipped"
    """They were given up, with or without a notice."""
