"""How often a function was called in one chain of calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.functions.tracing import HEADER_CHARS_MAX, TraceContext, of_trace_header, trace_header
from poller.rules.functions.lineage import FUNCTIONS_MAX, extended, lineage_hash, rounds_of, usable

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
OTHER = ARN.replace("orders", "bills")
ROOT = "1-5759e988-bd862e3fe1be46a994272793"


def test_each_call_counts_one_more_round_of_its_function() -> None:
    header = f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1"
    for rounds in range(20):
        assert (rounds_of(header, ARN), rounds_of(header, OTHER)) == (rounds, rounds)
        header = extended(extended(header, ARN, root="unused"), OTHER, root="unused")
        assert header.startswith(f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=")


def test_versions_and_aliases_of_a_function_count_together() -> None:
    header = extended("", f"{ARN}:live", root=ROOT)
    assert header == f"Root={ROOT};Lineage={lineage_hash(ARN)}:1"
    assert rounds_of(header, f"{ARN}:7") == rounds_of(header, ARN) == 1


@pytest.mark.parametrize("form", ["{}:5", "1:{}:5", "aaaaaaaa:1|{}:5|bbbbbbbb:2"])
def test_each_form_of_a_lineage_is_read(form: str) -> None:
    assert rounds_of(f"Root={ROOT};lineage={form.format(lineage_hash(ARN))}", ARN) == 5


@pytest.mark.parametrize(
    "value", ["", ":", "x", "{}:", "{}:-1", "{}:x", "{}:0", "{}:5\n", "{}:" + "9" * HEADER_CHARS_MAX]
)
def test_what_cannot_be_read_counts_as_no_lineage(value: str) -> None:
    assert rounds_of("Lineage=" + value.format(lineage_hash(ARN)), ARN) == 0


def test_the_functions_that_a_lineage_keeps_are_bounded_and_the_present_one_is_kept() -> None:
    header = ""
    for number in range(3 * FUNCTIONS_MAX):
        header = extended(header, f"{ARN}{number}", root=ROOT)
        assert rounds_of(header, f"{ARN}{number}") == 1
    assert header.count("|") == FUNCTIONS_MAX - 1
    assert len(header) <= HEADER_CHARS_MAX


@given(
    header=st.text(max_size=200)
    | st.from_regex(r"(Root=x;)?Lineage=([0-9a-f]{8}:[0-9]{1,9}\|){0,60}", fullmatch=True)
)
def test_any_header_gives_one_that_can_be_read_and_counts_on(header: str) -> None:
    before = rounds_of(header, ARN)
    longer = extended(header, ARN, root=ROOT)
    assert rounds_of(longer, ARN) == before + 1
    assert longer.isascii()
    assert "Root=" in longer


FOREIGN = st.lists(
    st.tuples(
        st.sampled_from(["Root", "root", "Parent", "Sampled", "Self", "Lineage", "Session", " Root ", ""]),
        st.text("0123456789abcdef-:|=. ", max_size=400),
    ).map("=".join),
    max_size=12,
)


@given(parts=FOREIGN, between=st.sampled_from([";", "; ", " ; "]), rounds=st.integers(1, 40))
def test_a_loop_is_counted_whatever_else_its_header_carries(
    parts: list[str], between: str, rounds: int
) -> None:
    header = between.join(parts)[:HEADER_CHARS_MAX]
    before = rounds_of(header, ARN)
    for number in range(1, rounds):
        header = extended(header, f"{ARN}{number}", root=ROOT)
        header = extended(header, ARN, root=ROOT)
        assert len(header) <= HEADER_CHARS_MAX
        assert rounds_of(header, ARN) == before + number
        # A tracer on the way writes its own span into the header.
        header = trace_header(TraceContext("a" * 32, "b" * 16, sampled=True), header)
        assert rounds_of(header, ARN) == before + number
        found = of_trace_header(header)
        assert found is not None
        assert found.span == "b" * 16


def test_blanks_between_members_do_not_hide_the_lineage() -> None:
    header = f"Root={ROOT}; Parent=53995c3f42cd8ad8; Sampled=1; Lineage={lineage_hash(ARN)}:7"
    assert rounds_of(header, ARN) == 7
    assert usable(header) == header.replace("; ", ";")


def test_a_header_that_is_too_long_counts_as_none_and_is_not_cut_to_a_smaller_count() -> None:
    header = f"Root={ROOT};Filler={'x' * HEADER_CHARS_MAX};Lineage={lineage_hash(ARN)}:15"
    assert usable(header) == ""
