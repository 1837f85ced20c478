"""Errors of YAML: each is one line with its place and a remedy, whatever the file holds."""

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
        ("a: &x 1\nb: &x 2", "a name of its own"),
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
