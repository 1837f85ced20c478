"""Owns how objects of Kubernetes become resources, and how status and events become objects.

An object may have anything in it: the API server checks it against the definition that is installed, which may be another version's.
What cannot be read of a status counts as not written. An object without a usable name, uid or version is no resource.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from poller.domain.records import Epoch
from poller.domain.resources.resource import MappingResource, ResourceCondition, ResourceEvent, ResourceStatus

GROUP, VERSION, KIND, PLURAL = "poller.dev", "v1", "EventSourceMapping", "eventsourcemappings"
API = f"{GROUP}/{VERSION}"
MANAGER = "poller"
"""The field manager of the status."""
CONTROLLER = "poller.dev/poller"
NAME_CHARS_MAX = 253
INSTANCE_CHARS_MAX = 128
CONDITIONS_MAX = 32

type Object = Mapping[str, Any]


def resource_of(given: object) -> MappingResource | None:
    """The resource of an object; None if it has no usable name, namespace, uid or version."""
    metadata = _table(_table(given).get("metadata"))
    name, namespace, uid, version = (
        _text(metadata.get(key)) for key in ("name", "namespace", "uid", "resourceVersion")
    )
    if not (name and namespace and uid and version):
        return None
    return MappingResource(
        namespace=namespace,
        name=name,
        uid=uid,
        generation=_whole(metadata.get("generation")) or 0,
        version=version,
        spec=_table(_table(given).get("spec")),
        created=_moment(metadata.get("creationTimestamp")) or Epoch(0.0),
        written=_status_of(_table(given).get("status")),
        deleting=metadata.get("deletionTimestamp") is not None,
    )


def version_of(given: object) -> str:
    """The version of an object or of a list; empty if it has none."""
    return _text(_table(_table(given).get("metadata")).get("resourceVersion"))


def status_object(resource: MappingResource, status: ResourceStatus) -> dict[str, Any]:
    """What is applied to the status of a resource at its version."""
    shown: dict[str, Any] = {
        "observedGeneration": status.generation,
        "conditions": [_condition_object(each) for each in status.conditions],
    }
    texts = {"uuid": status.uuid, "state": status.state, "lastProcessingResult": status.last_result}
    shown |= {name: text for name, text in texts.items() if text}
    if status.shards is not None:
        shown["shards"] = status.shards
    if status.lag_s is not None:
        shown |= {"lag": duration(status.lag_s), "lagSeconds": status.lag_s}
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {"name": resource.name, "uid": resource.uid, "resourceVersion": resource.version},
        "status": shown,
    }


def event_object(resource: MappingResource, event: ResourceEvent, *, worker: str) -> dict[str, Any]:
    """The event as an object. The same event has the same name, so that it is there once."""
    digest = blake2b(event.key.encode(), digest_size=8).hexdigest()
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{resource.name[: NAME_CHARS_MAX - 17]}.{digest}",
            "namespace": resource.namespace,
        },
        "eventTime": datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": worker[:INSTANCE_CHARS_MAX] or MANAGER,
        "action": event.reason,
        "reason": event.reason,
        "note": event.note or event.reason,
        "type": "Warning" if event.warning else "Normal",
        "regarding": {
            "apiVersion": API,
            "kind": KIND,
            "namespace": resource.namespace,
            "name": resource.name,
            "uid": resource.uid,
            "resourceVersion": resource.version,
        },
    }


def duration(seconds: int) -> str:
    """A time as kubectl writes ages: 12s, 3m5s, 3h5m, 2d3h."""
    for size, unit, smaller, small_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size}{unit}" + (f"{rest}{small_unit}" if rest else "")
    return f"{seconds}s"


def _condition_object(condition: ResourceCondition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": "True" if condition.holds else "False",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": datetime.fromtimestamp(condition.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": condition.generation,
    }


def _status_of(given: object) -> ResourceStatus | None:
    status = _table(given)
    conditions = status.get("conditions")
    if not isinstance(conditions, list):
        return None
    found = [_condition_of(each) for each in conditions[:CONDITIONS_MAX]]
    return ResourceStatus(
        generation=_whole(status.get("observedGeneration")) or 0,
        conditions=tuple(each for each in found if each is not None),
        uuid=_text(status.get("uuid")),
        state=_text(status.get("state")),
        last_result=_text(status.get("lastProcessingResult"), chars_max=None),
        shards=_whole(status.get("shards")),
        lag_s=_whole(status.get("lagSeconds")),
    )


def _condition_of(given: object) -> ResourceCondition | None:
    found = _table(given)
    since, type_ = _moment(found.get("lastTransitionTime")), _text(found.get("type"))
    if since is None or not type_:
        return None
    return ResourceCondition(
        type=type_,
        holds=found.get("status") == "True",
        reason=_text(found.get("reason")),
        message=_text(found.get("message"), chars_max=None),
        since=since,
        generation=_whole(found.get("observedGeneration")) or 0,
    )


def _table(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}


def _text(given: object, *, chars_max: int | None = NAME_CHARS_MAX) -> str:
    fits = isinstance(given, str) and (chars_max is None or (len(given) <= chars_max and given.isprintable()))
    return given if fits and isinstance(given, str) else ""


def _whole(given: object) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else None


def _moment(given: object) -> Epoch | None:
    if not isinstance(given, str):
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        return None
    return Epoch((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp())
