"""Lines of a dry run are safe for a terminal, and events are printed without a change of their values."""

import json

from hypothesis import given
from hypothesis import strategies as st

from poller.commands.dry_run.lines import DryLines, printable_json
from poller.commands.dry_run.recorder import DryNote
from poller.domain.records import ShardId
from tests.hostile_texts import HOSTILE, fit
from tests.runtime.fakes import mapping

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_an_event_is_equal_and_printable_ascii(value: object) -> None:
    for indent in (None, 1):
        text = printable_json(json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace"))
        assert text.isascii()
        assert text.isprintable()
        plain = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        assert json.loads(text) == plain


def test_numbers_stay_as_they_were_written() -> None:
    text = '{"n": 1e999, "m": 123456789012345678901234567890.10}'
    assert printable_json(text.encode()) == text


def test_hostile_reasons_and_shards_are_one_clean_line() -> None:
    lines = DryLines([mapping()])
    for text in HOSTILE.values():
        note = DryNote(text, mapping().mapping, ShardId(text), problem=True)
        (line,) = lines.of(note)
        assert fit(line)
        document = json.loads(lines.document(note))
        assert fit(document["text"])
        assert fit(document["shard"])
        assert lines.document(note).isascii()
