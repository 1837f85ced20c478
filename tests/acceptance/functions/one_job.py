"""A job that is the same behind every invoker: it takes records of a stream or a queue, and fails where a record says so.

It needs the standard library alone, so that the file can be a function of Lambda as it is. A record is JSON: `key`, `n` and `do`. The
environment variable JOB_JOURNAL names the journal: lines of JSON, one for each invocation, each written in one piece.
"""

import base64
import json
import os
import time
from typing import Any

JOURNAL = "JOB_JOURNAL"
LATE_S = "JOB_LATE_S"
"""How long the job takes where a record makes it late: longer than its time limit."""


class Broken(Exception):
    """A record made the whole batch fail."""


def handler(event: dict[str, Any], context: Any) -> Any:
    """Takes the event that Lambda's event source mappings give."""
    del context
    records = event["Records"]
    return job(records, [_identifier(record) for record in records])


def job(records: list[dict[str, Any]], identifiers: list[str]) -> dict[str, Any]:
    """Processes records in order; reports by their identifiers those that failed, or raises Broken."""
    tasks = [_task(record) for record in records]
    names = [f"{task['key']}:{task['n']:03d}" for task in tasks]
    for name, task in zip(names, tasks, strict=True):
        match task["do"]:
            case "raise":
                _write("raised", names, [])
                raise Broken(name)
            case "raise once" if _first(name):
                _write("raised", names, [])
                raise Broken(name)
            case "late once" if _first(name):
                _write("late", names, [])
                time.sleep(float(os.environ[LATE_S]))
                raise Broken(f"{name} went on after its time")
    failed = _failed(names, tasks, in_order="kinesis" in records[0])
    done = [name for name in names if name not in failed]
    _write("partial" if failed else "done", names, done)
    items = [_item(identifiers[names.index(name)], tasks[names.index(name)]) for name in failed]
    return {"batchItemFailures": items}


def _task(record: dict[str, Any]) -> dict[str, Any]:
    text = base64.b64decode(record["kinesis"]["data"]) if "kinesis" in record else record["body"]
    task: dict[str, Any] = json.loads(text)
    return task


def _identifier(record: dict[str, Any]) -> str:
    found: str = record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["messageId"]
    return found


def _failed(names: list[str], tasks: list[dict[str, Any]], *, in_order: bool) -> list[str]:
    """The records that fail and, in a stream or in their group, all behind them."""
    blocked: set[str] = set()
    failed: list[str] = []
    for name, task in zip(names, tasks, strict=True):
        lane = "" if in_order else task["key"]
        fails = task["do"] == "report" or (task["do"] == "report once" and _first(name))
        if fails or lane in blocked:
            blocked.add(lane)
            failed.append(name)
    return failed


def _item(identifier: str, task: dict[str, Any]) -> dict[str, Any]:
    """An item of the report. What always fails is tried again at once, which is for queues alone."""
    return {"itemIdentifier": identifier, **({"retryAfterSeconds": 0} if task["do"] == "report" else {})}


def _first(name: str) -> bool:
    """Whether this is the record's first try, in whichever process."""
    try:
        os.close(os.open(f"{os.environ[JOURNAL]}.{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _write(how: str, got: list[str], done: list[str]) -> None:
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(journal, json.dumps({"how": how, "got": got, "done": done}).encode() + b"\n")
    finally:
        os.close(journal)
