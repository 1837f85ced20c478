"""Every recorded answer of Event Ruler, one by one."""

import json
from pathlib import Path

from poller.rules.filtering import InvalidPattern, compile_pattern, explain

VECTORS = Path(__file__).parent / "data" / "filter-vectors.jsonl"
SHOWN = 10


def answer(pattern: object, event: object) -> str:
    try:
        compiled = compile_pattern(json.dumps(pattern))
    except InvalidPattern:
        return "invalid"
    matched = compiled.matches(event)
    assert explain(compiled, event).matched is matched
    return "true" if matched else "false"


def test_every_recorded_answer_of_event_ruler_is_ours() -> None:
    vectors = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    different = [v for v in vectors if answer(v["pattern"], v["event"]) != v["result"]]
    print(f"{len(vectors)} answers compared, {len(different)} differ")
    for vector in different[:SHOWN]:
        print(json.dumps(vector, ensure_ascii=False))
    assert len(vectors) == 2600
    assert not different
