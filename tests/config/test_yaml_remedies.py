"""Errors of YAML: each is one line with its place and a remedy, whatever the file holds."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.config.yaml_files import parse_document
from poller.config_errors.yaml_remedies import OTHERWISE
from poller.domain.errors import InvalidConfiguration

PIECES = st.sampled_from(
    [
        *"ab:-,?#&*!|>'\"%@`[]{}<\\0 \t\n",
        ": ",
        "- ",
        "\n  ",
        "\n---\n",
        "\n...\n",
        "name: ",
        "<<: ",
        "&a ",
        "*a",
        "%YAML 3.0\n",
    ]
)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a:\n\tb: 2", "indent with blanks"),
        ("a: %x", "in quotes"),
        ("a: *x", "in quotes"),
        ("a: b: c", "in quotes"),
        ("a: - b", "on the line below"),
        ('a: "x', "close the quotation mark"),
        ("a: 'x", "close the quotation mark"),
        ('a: "C:\\qx"', "single quotation marks"),
        ("a: [1, 2", "still open"),
        ("a: {b: 1", "still open"),
        ("a: [b: c: d]", "close the list"),
        ("a: {b c]", "close the mapping"),
        ("a: 1\n---\nb: 2", "keep one document"),
        ("a: 1\n...\nb: 2", "keep one document"),
        ("? [a]\n: 1", "a text as the name"),
        ("<<: 1", "alias of a mapping"),
        ("a: |x\n b", "on the lines below"),
        ("key: value\nother", "`name: value`"),
        ("a: ]", "in quotes"),
        ("a:\n  b: 1\n c: 2", "line names up"),
        ("a: 'it's'", "in quotes"),
        ("%YAML 3.0\n---\na: 1", OTHERWISE),
    ],
)
def test_each_error_of_the_reader_has_its_remedy(text: str, remedy: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        parse_document(text, name="f.yaml")
    (problem,) = refused.value.problems
    place, _, told = problem.partition("; ")
    assert place.startswith("f.yaml: line ")
    assert remedy in told


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: &x [1]\nb: *x\nc: &x [2]\nd: *x", {"a": [1], "b": [1], "c": [2], "d": [2]}),
        ("a: &x [&x 1, *x]\nb: *x", {"a": [1, 1], "b": 1}),
        ("a: &x {b: 1}\nc: &x {<<: *x}", None),
    ],
)
def test_an_anchor_may_be_given_again_and_aliases_mean_the_last_one(
    text: str, document: dict[str, Any] | None
) -> None:
    if document is not None:
        assert parse_document(text, name="f.yaml") == document
    else:
        with pytest.raises(InvalidConfiguration, match="an alias contains itself; write the value out"):
            parse_document(text, name="f.yaml")


def test_anchors_that_are_given_again_do_not_hide_what_aliases_weigh() -> None:
    lines = ["a0: &x [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"a{number}: &x{number % 2} [{', '.join(['*x' if number == 1 else f'*x{1 - number % 2}'] * 10)}]"
        for number in range(1, 12)
    ]
    with pytest.raises(InvalidConfiguration, match="values, aliases included"):
        parse_document("\n".join(lines), name="f.yaml")


@given(st.lists(PIECES, max_size=30).map("".join))
@example("a: \x00")
@example("a: \ud800")
@settings(max_examples=400, deadline=None)
def test_whatever_the_text_is_an_error_is_one_line_with_a_remedy(text: str) -> None:
    try:
        parse_document(text, name="f.yaml")
    except InvalidConfiguration as refused:
        for problem in map(str, refused.problems):
            assert problem.startswith("f.yaml:")
            assert "; " in problem
            assert "\n" not in problem
