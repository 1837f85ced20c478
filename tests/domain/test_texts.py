"""Texts from outside: nothing that controls a terminal stays, everything has an end, and plain text is left as it is."""

import random
import time

import pytest

from poller.domain.untrusted.texts import ends_of, line_of, lines_of
from tests.hostile_texts import ANY_CHARACTER, HOSTILE, fit

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("näßt 😀 中文", "näßt 😀 中文"),
        ("a\tb", "a b"),
        ("a\r\nb\nc\rd", "a b c d"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07shown", "shown"),
        ("a\ud800b", "a\ufffdb"),
        ("\u202eabc", "abc"),
        ("x" * 12, "x" * 9 + "…"),
    ],
)
def test_a_text_becomes_one_clean_line(text: str, line: str) -> None:
    assert line_of(text, chars_max=10) == line


def test_line_feeds_stay_where_several_lines_are_wanted() -> None:
    assert lines_of("a\r\nb\u2028c", chars_max=10) == "a\nb\nc"


@hostile
def test_a_hostile_text_is_fit_to_be_shown(text: str) -> None:
    line = line_of(text, chars_max=100)
    assert fit(line)
    assert len(line) <= 100
    line.encode()


def test_any_mixture_of_characters_is_fit_to_be_shown() -> None:
    rng = random.Random(14)
    for _ in range(2000):
        text = "".join(
            rng.choices(ANY_CHARACTER, k=rng.randrange(40)) + rng.choices(ANY_CHARACTER[:256], k=20)
        )
        assert fit(line_of(text, chars_max=50))


@hostile
def test_what_was_cleaned_once_stays_as_it_is(text: str) -> None:
    once = lines_of(text, chars_max=100)
    assert lines_of(once, chars_max=100) == once


def test_the_time_that_cleaning_takes_has_a_bound() -> None:
    began = time.perf_counter()
    for text in HOSTILE.values():
        lines_of(text * 10, chars_max=1000)
    assert time.perf_counter() - began < 1


def test_of_many_lines_the_first_and_the_last_are_kept() -> None:
    kept = ends_of((str(number) for number in range(100)), lines_max=5, chars_max=50)
    assert kept == ("0", "1", "… 96 lines more …", "98", "99")


def test_few_lines_are_all_kept() -> None:
    assert ends_of(["  a  ", "\x1b[31mb"], lines_max=2, chars_max=50) == ("  a", "b")
