"""Which mapping a new one of the file continues."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Epoch, MappingId, Position, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.rules.continued_mapping import (
    Begin,
    Change,
    Connection,
    Continue,
    Unclear,
    change_to,
    completed,
    continued_by,
    decide,
    described,
    earliest,
    refreshed,
)

SOURCE, OTHER = "stream/readings", "stream/other"
A, B, C, D = (MappingId(each) for each in "abcd")


def of(version: str, *, source: str = SOURCE, name: str = "reader") -> Connection:
    return Connection(source, name, f"function:{name}:{version}")


def change(number: int, *file: MappingId, left: tuple[str, ...] = (), new: tuple[str, ...] = ()) -> Change:
    return Change(number, file, left, new)


def row(
    mapping: MappingId,
    connection: Connection,
    changed: Change | None = None,
    *,
    seeded: bool = True,
    continued: MappingId | None = None,
) -> MappingRow:
    document = described(connection, change=changed, continued=continued)
    return MappingRow(mapping, Epoch(1.0), seeded=seeded, document=document)


def test_a_new_mapping_continues_the_one_that_is_gone_from_the_file() -> None:
    old = row(A, of("v1"))
    assert decide(B, of("v2"), [old], file={B: of("v2")}) == Continue(old, "function:reader:v1")


def test_its_own_row_without_positions_changes_nothing() -> None:
    rows = [row(A, of("v1")), row(B, of("v2"), seeded=False)]
    assert decide(B, of("v2"), rows, file={B: of("v2")}) == Continue(rows[0], "function:reader:v1")


def test_two_mappings_in_the_file_are_two_mappings() -> None:
    file = {A: of("v1"), B: of("v2")}
    assert decide(B, of("v2"), [row(A, of("v1"))], file=file) == Begin()
    assert decide(A, of("v1"), [], file=file) == decide(B, of("v2"), [], file=file) == Begin()


def test_one_of_two_that_changes_continues_its_own_place() -> None:
    old, other = row(A, of("v1")), row(B, of("live"))
    file = {B: of("live"), C: of("v2")}
    assert decide(C, of("v2"), [old, other], file=file) == Continue(old, "function:reader:v1")


def test_another_source_or_another_function_is_nothing_to_continue() -> None:
    rows = [row(A, of("v1", source=OTHER)), row(B, of("v1", name="writer"))]
    assert decide(C, of("v2"), rows, file={C: of("v2")}) == Begin()


def test_a_mapping_without_positions_is_nothing_to_continue() -> None:
    assert decide(B, of("v2"), [row(A, of("v1"), seeded=False)], file={B: of("v2")}) == Begin()


def test_rows_of_the_api_and_of_imports_are_nothing_to_continue() -> None:
    rows = [MappingRow(A, Epoch(1.0), seeded=True), MappingRow(B, Epoch(1.0), document={"parameters": {}})]
    assert decide(C, of("v2"), rows, file={C: of("v2")}) == Begin()


def test_two_that_left_at_once_are_not_clear() -> None:
    rows = [row(A, of("v1")), row(B, of("v2"))]
    found = decide(C, of("v3"), rows, file={C: of("v3")})
    assert found == Unclear(tuple(rows), ("function:reader:v1", "function:reader:v2"))
    assert (
        found.reason == "it is not clear which mapping it continues (function:reader:v1, function:reader:v2)"
    )
    later = [*rows, row(C, of("v3"), change(1, C, left=(A, B), new=(C,)))]
    assert decide(D, of("v4"), later, file={D: of("v4")}) == Continue(later[2], "function:reader:v3")


def test_what_left_the_file_earlier_never_counts() -> None:
    both, alone = change(1, A, B), change(2, B, left=(A,))
    rows = [row(A, of("v1"), both), row(B, of("v2"), alone)]
    assert decide(C, of("v3"), rows, file={C: of("v3")}) == Continue(rows[1], "function:reader:v2")
    rows = [row(A, of("v1"), both), row(B, of("v2"), both)]
    assert isinstance(decide(C, of("v3"), rows, file={C: of("v3")}), Unclear)


def test_the_one_that_ran_last_is_continued_whatever_began_last() -> None:
    rows = [row(A, of("v1"), change(3, A)), row(B, of("v2"), change(2, B, left=(A,), new=(B,)))]
    assert decide(C, of("v3"), rows, file={C: of("v3")}) == Continue(rows[0], "function:reader:v1")


def test_one_that_comes_back_to_its_own_positions_is_not_new() -> None:
    rows = [row(A, of("v1"), change(1, A, B)), row(B, of("v2"), change(2, B, left=(A,)))]
    file = {A: of("v1"), C: of("v3")}
    assert change_to(file, of("v3"), rows) == Change(3, (A, C), (B,), (C,))
    assert decide(C, of("v3"), rows, file=file) == Continue(rows[1], "function:reader:v2")


def test_two_new_ones_are_not_clear_whichever_comes_first() -> None:
    old, file = row(A, of("v1"), change(1, A)), {B: of("v2"), C: of("v3")}
    assert isinstance(decide(B, of("v2"), [old], file=file), Unclear)
    changed = change_to(file, of("v2"), [old])
    assert changed == Change(2, (B, C), (A,), (B, C))
    after = [old, row(B, of("v2"), changed)]
    assert change_to(file, of("v3"), after) == changed
    assert isinstance(decide(C, of("v3"), after, file=file), Unclear)


def test_one_that_stays_may_write_the_change_down_before_the_new_one_begins() -> None:
    rows = [row(A, of("v1"), change(1, A, B)), row(B, of("live"), change(1, A, B))]
    file = {B: of("live"), C: of("v2")}
    changed = change_to(file, of("live"), rows)
    after = [rows[0], row(B, of("live"), changed)]
    assert (
        decide(C, of("v2"), rows, file=file)
        == decide(C, of("v2"), after, file=file)
        == Continue(rows[0], "function:reader:v1")
    )


def test_a_new_one_that_never_began_leaves_what_it_would_have_continued() -> None:
    changed = change(2, A, C, left=(B,), new=(C,))
    rows = [row(A, of("v1"), changed), row(B, of("v2"), change(1, A, B))]
    file = {A: of("v1"), D: of("v4")}
    assert decide(D, of("v4"), rows, file=file) == Continue(rows[1], "function:reader:v2")


def test_one_that_never_ran_with_another_in_the_file_is_not_continued() -> None:
    rows = [row(A, of("v1"), change(1, A))]
    assert change_to({A: of("v1")}, of("v1"), rows) == change(1, A)
    assert decide(B, of("v2"), rows, file={A: of("v1"), B: of("v2")}) == Begin()


def test_an_unclear_place_is_the_earliest_of_all_in_each_shard() -> None:
    def at(shard: str, position: Position) -> Lease:
        return Lease(ShardId(shard), (), Checkpoint(position, position.encode().encode()), epoch=3)

    def begun(shard: str, position: Position) -> Lease:
        return Lease(ShardId(shard), (), Checkpoint(position, position.encode().encode()))

    after, end = Position.after, Position(Position.decode("SHARD_END").rank)
    some = [at("a", after("5")), at("b", end), at("c", after("7"))]
    others = [at("a", after("9")), at("b", after("2"))]
    found = earliest([some, others, []])
    assert found == [
        begun("a", after("5")),
        begun("b", after("2")),
        Lease(ShardId("c"), (), Checkpoint(Position.horizon())),
    ]
    assert earliest([[], []]) == []


def test_what_was_taken_over_is_not_taken_over_again() -> None:
    rows = [row(A, of("v1")), row(B, of("v2"), continued=A)]
    assert decide(C, of("v3"), rows, file={C: of("v3")}) == Continue(rows[1], "function:reader:v2")
    assert decide(C, of("v3"), rows, file={B: of("v2"), C: of("v3")}) == Begin()


def test_a_document_keeps_what_it_continued_until_that_is_forgotten() -> None:
    before, changed = row(A, of("v1"), continued=D), change(2, A, B)
    after = MappingRow(A, Epoch(1.0), document=refreshed(before, of("v2"), changed))
    assert after.document == described(of("v2"), change=changed, continued=D)
    assert continued_by(after) == D
    assert completed(after) == described(of("v2"), change=changed)


VERSIONS = st.sampled_from(["v1", "v2", "v3", "v4"])
IDS = {version: MappingId(f"id-{version}") for version in ("v1", "v2", "v3", "v4")}


@given(st.lists(st.sets(VERSIONS, max_size=2), min_size=1, max_size=8))
def test_a_place_goes_to_one_of_the_last_file_and_never_twice(files: list[set[str]]) -> None:
    """One worker goes through files; each mapping either has its place, continues one that has left, or begins."""
    rows: dict[MappingId, MappingRow] = {}
    last: set[MappingId] = set()
    for versions in files:
        file = {IDS[each]: of(each) for each in sorted(versions)}
        left, new = last & rows.keys() - file.keys(), file.keys() - rows.keys()
        continued: list[MappingId] = []
        for mapping, connection in file.items():
            changed = change_to(file, connection, list(rows.values()))
            if mapping not in rows:
                found = decide(mapping, connection, list(rows.values()), file=file)
                if len(left) == len(new) == 1:
                    assert found == Continue(rows[min(left)], of(min(left)[3:]).function)
                    continued += left
                elif left:
                    assert isinstance(found, Unclear)
                    assert {each.mapping for each in found.rows} == left
                else:
                    assert found == Begin()
            rows[mapping] = row(mapping, connection, changed)
        for each in continued:
            del rows[each]
        assert len(continued) <= 1
        last = set(file) or last
