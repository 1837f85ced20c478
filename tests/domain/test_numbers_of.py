"""A number and its noun: one thing is never written as several, here and wherever the product writes to people."""

import ast
import re
from pathlib import Path

import pytest

from poller.domain.wording.numbers_of import inflected, number_of

ROOT = Path(__file__).parents[2]
NOUNS = (
    "batches breakers documents entries events failures functions groups invocations items keys lines "
    "mappings messages notices objects operations parts pauses pollers records replays shards workers"
)
"""Words that are no verbs, too, and of which there may be one."""
PLURAL = re.compile(rf"^ (?:more |of them )?(?:{'|'.join(NOUNS.split())})\b")


@pytest.mark.parametrize(
    ("number", "noun", "plural", "of", "written"),
    [
        (0, "record", None, None, "0 records"),
        (1, "record", None, None, "1 record"),
        (2, "record", None, None, "2 records"),
        (1, "batch", "batches", None, "1 batch"),
        (3, "batch", "batches", None, "3 batches"),
        (1, "message", None, 1, "1 of 1 message"),
        (1, "message", None, 3, "1 of 3 messages"),
    ],
)
def test_a_number_has_its_noun(
    number: int, noun: str, plural: str | None, of: int | None, written: str
) -> None:
    assert number_of(number, noun, plural, of=of) == written


def test_a_verb_follows_its_number() -> None:
    assert [inflected(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


def by_hand(source: str) -> list[str]:
    """The numbers in f-strings of this code that stand before a plural noun. Constants are left out: they do not become 1."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            words = str(text.value)
            if PLURAL.match(words) and not _constant(value.value):
                found.append(ast.unparse(value.value) + words)
    return found


def _constant(value: ast.expr) -> bool:
    return all(
        each.id.isupper() for each in ast.walk(value) if isinstance(each, ast.Name)
    ) and not isinstance(value, ast.Call)


def test_numbers_that_are_put_before_nouns_by_hand_are_found() -> None:
    assert by_hand('f"{count} messages are visible again"') == ["count messages are visible again"]
    assert by_hand('f"{len(failed)} more records"') == ["len(failed) more records"]
    assert by_hand('f"more than {LIMIT * 2} bytes"; f"{number_of(count, \'message\')} in all"') == []


def test_no_number_is_put_before_a_noun_by_hand() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {each}"
        for folder in ("poller", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        for each in by_hand(path.read_text())
    }
    assert found == set()
