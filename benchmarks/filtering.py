"""How fast patterns answer on one core.

    python -m benchmarks.filtering [--json]

Prints matches a second for single-field patterns over parsed events (the target is 300,000), for fields that need
more work, and for the Kinesis path from base64 on, with and without a pattern that looks at the payload. The last
lines repeat the Kinesis path with a payload a thousand times as long: a filter on the key alone keeps its speed,
because it does not decode what it does not look at.
"""

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from poller.rules.filtering import Filter, compile_pattern

TARGET_PER_S = 300_000
ROUNDS = 5
ROUND_S = 0.2
BLOCK = 1_000

DATA: dict[str, object] = {
    "kind": "alarm",
    "tags": ["red", "loud"],
    "parts": [{"name": "pump", "state": "ok"}, {"name": "valve", "state": "stuck"}],
}
EVENT = {"partitionKey": "device-7", "level": 3, "source": "10.0.0.5", "data": DATA}
SINGLE_FIELD = {
    "text": '{"partitionKey": ["device-7"]}',
    "number": '{"level": [3]}',
    "prefix": '{"partitionKey": [{"prefix": "device-"}]}',
    "suffix": '{"partitionKey": [{"suffix": "-7"}]}',
    "equals-ignore-case": '{"partitionKey": [{"equals-ignore-case": "DEVICE-7"}]}',
    "wildcard": '{"partitionKey": [{"wildcard": "d*-*7"}]}',
    "numeric range": '{"level": [{"numeric": [">", 1, "<=", 5]}]}',
    "anything-but": '{"partitionKey": [{"anything-but": ["a", "b"]}]}',
    "exists": '{"level": [{"exists": true}]}',
    "absent": '{"missing": [{"exists": false}]}',
    "nested key": '{"data": {"kind": ["alarm"]}}',
    "array of text": '{"data": {"tags": ["loud"]}}',
}
MORE_WORK = {
    "cidr": '{"source": [{"cidr": "10.0.0.0/24"}]}',
    "two fields": '{"partitionKey": ["device-7"], "data": {"kind": ["alarm"]}}',
    "$or": '{"$or": [{"level": [9]}, {"data": {"kind": ["alarm"]}}]}',
    "one element of an array": '{"data": {"parts": {"name": ["valve"], "state": ["stuck"]}}}',
}
KEY_PATTERN = '{"partitionKey": ["device-7"]}'
PAYLOAD_PATTERN = '{"data": {"kind": ["alarm"]}}'


def per_second(call: Callable[[], object]) -> int:
    """The best of some rounds, each at least a fifth of a second long."""
    return max(_one_round(call) for _ in range(ROUNDS))


def _one_round(call: Callable[[], object]) -> int:
    calls, started, elapsed = 0, perf_counter(), 0.0
    while elapsed < ROUND_S:
        for _ in range(BLOCK):
            call()
        calls += BLOCK
        elapsed = perf_counter() - started
    return round(calls / elapsed)


def figures() -> Iterator[tuple[str, int]]:
    """Name and matches a second of every case."""
    for group, patterns in (("single field", SINGLE_FIELD), ("more work", MORE_WORK)):
        for name, text in patterns.items():
            pattern = compile_pattern(text)
            assert pattern.matches(EVENT), name
            yield f"{group}: {name}", per_second(partial(pattern.matches, EVENT))
    for size, filler in (("short payload", ""), ("long payload", "x" * 100_000)):
        data = base64.b64encode(json.dumps(DATA | {"filler": filler}).encode()).decode()
        yield f"kinesis, {size}: pattern on the key alone", _kinesis(KEY_PATTERN, data)
        yield f"kinesis, {size}: pattern on the payload", _kinesis(PAYLOAD_PATTERN, data)


def _kinesis(pattern: str, data: str) -> int:
    compiled = Filter.of([pattern], "kinesis")
    assert compiled is not None
    matches = compiled.matches_kinesis
    assert matches("device-7", "49650", 1767225600.125, data)
    return per_second(lambda: matches("device-7", "49650", 1767225600.125, data))


def main() -> int:
    """Print the figures; exit status 1 if a single-field pattern misses the target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filtering")
    parser.add_argument("--json", action="store_true", help="one JSON object: name to matches a second")
    as_json = parser.parse_args().json
    measured = dict(figures())
    slowest = min(rate for name, rate in measured.items() if name.startswith("single field"))
    if as_json:
        print(json.dumps({"unit": "matches/s", "target": TARGET_PER_S, "figures": measured}, indent=2))
    else:
        for name, rate in measured.items():
            print(f"{name:48s} {rate:12,d} /s")
        print(f"slowest single-field pattern: {slowest:,d} /s; target {TARGET_PER_S:,d} /s")
    return 0 if slowest >= TARGET_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
