"""A draft that is written is read again as it was, whatever texts it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.starting.draft import Draft, FunctionDraft, MappingDraft, MemberMark
from poller.config.starting.written import MODELINE, scalar, written
from poller.config.yaml_files import parse_document
from tests.hostile_texts import HOSTILE, fit

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "true",
        "null",
        "~",
        "1",
        "1e3",
        "012",
        "0x1",
        "1:2",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "'",
        '"',
        "\n",
        "<<",
        "=",
        "*a",
        "&a",
        "!a",
        "%",
        "@",
        "yes",
    ]
)
VALUES = st.recursive(
    TEXTS | st.integers(-(10**30), 10**30) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.dictionaries(TEXTS, inner, min_size=1, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(TEXTS, VALUES | st.lists(TEXTS, max_size=3), min_size=1, max_size=4)


@given(text=TEXTS)
def test_a_text_stays_that_text(text: str) -> None:
    assert parse_document(f"{scalar(text)}: {scalar(text)}", name="x") == {text: text}
    assert "\n" not in scalar(text)


@given(settings=TABLES, members=TABLES, remark=TEXTS, listed=st.lists(TABLES, min_size=1, max_size=2))
def test_a_file_is_read_as_it_was_meant(
    settings: dict[str, object], members: dict[str, object], remark: str, listed: list[object]
) -> None:
    draft = Draft(
        store="memory://",
        region="eu-west-1",
        functions=[FunctionDraft(name="a", settings=settings, comments=[remark])],
        mappings=[
            MappingDraft(members=members, marks=[MemberMark(remark, remark, remark)], comments=[remark]),
            MappingDraft(members={"list": listed}, marks=[], comments=[]),
        ],
        comments=[remark],
    )
    text = written(draft)
    assert text.startswith(MODELINE + "\n")
    assert parse_document(text, name="x") == {
        "region": "eu-west-1",
        "store": "memory://",
        "listen": "127.0.0.1:8080",
        "functions": {"a": settings},
        "mappings": [members, {"list": listed}],
    }


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_stays_in_its_comment(text: str) -> None:
    mark = MemberMark("BatchSize", text, text)
    draft = Draft(
        store="memory://",
        functions=[],
        mappings=[MappingDraft(members={"FunctionName": "a"}, marks=[mark], comments=[text])],
    )
    found = parse_document(written(draft), name="x")
    assert found["mappings"] == [{"FunctionName": "a"}]
    assert all(fit(line) for line in written(draft).split("\n"))
