"""When changed code is taken up: a table of looks at files, and one property."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.invokers.function_code.code_watch import (
    AGAIN_S,
    AGAIN_S_MAX,
    LOOK_S,
    SETTLE_S,
    CodeWatch,
    Step,
)
from poller.domain.records import Monotonic

RUNNING = {"app": b"1", "helper": b"1"}
type Look = tuple[float, Mapping[str, bytes | None]]


def at(second: float, **changed: bytes | None) -> Look:
    """What a look at `second` sees: the running code with what changed."""
    return second, {**RUNNING, **changed}


def steps(*looks: Look) -> list[Step]:
    watch = CodeWatch(dict(RUNNING))
    return [watch.looked(contents, Monotonic(when)) for when, contents in looks]


NONE, LOAD = Step.NONE, Step.LOAD
TABLE: dict[str, tuple[Sequence[Look], list[Step]]] = {
    "nothing changes": ([at(0), at(9)], [NONE, NONE]),
    "one file changes and stays": ([at(0, app=b"2"), at(0.5, app=b"2")], [NONE, LOAD]),
    "a file is written in two steps": (
        [at(0, app=b"half"), at(0.5, app=b"whole"), at(1, app=b"whole")],
        [NONE, NONE, LOAD],
    ),
    "a checkout changes one file after another": (
        [
            at(0, app=b"2"),
            at(0.4, app=b"2", helper=b"2"),
            at(0.8, app=b"2", helper=b"2"),
            at(0.9, app=b"2", helper=b"2"),
        ],
        [NONE, NONE, NONE, LOAD],
    ),
    "a file is replaced, and gone for a moment": (
        [at(0, app=None), at(0.5, app=b"2"), at(1, app=b"2")],
        [NONE, NONE, LOAD],
    ),
    "a file is gone and stays away": ([at(0, helper=None), at(1, helper=None)], [NONE, LOAD]),
    "a change is undone before it is taken up": (
        [at(0, app=b"2"), at(0.4), at(0.5, app=b"2"), at(1, app=b"2")],
        [NONE, NONE, NONE, LOAD],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_change_is_taken_up_when_the_files_have_been_still(name: str) -> None:
    looks, expected = TABLE[name]
    assert steps(*looks) == expected


def refused(*, tried: Mapping[str, bytes | None] | None = None) -> CodeWatch:
    """A watch that refused `app` 2 at the second 1."""
    watch = CodeWatch(dict(RUNNING))
    when, broken = at(0, app=b"2")
    watch.looked(broken, Monotonic(when))
    assert watch.looked(broken, Monotonic(1)) is LOAD
    watch.refuse(broken, tried or {"app": b"2"}, Monotonic(1))
    return watch


def test_refused_code_is_not_tried_again_at_each_look() -> None:
    watch = refused()
    assert {watch.looked(at(0, app=b"2")[1], Monotonic(1 + each / 2)) for each in range(1, 19)} == {NONE}
    assert watch.with_folders


def test_refused_code_is_tried_again_when_it_changes_and_has_been_still() -> None:
    watch = refused()
    mended = at(0, app=b"3")[1]
    assert [watch.looked(mended, Monotonic(2)), watch.looked(mended, Monotonic(2.5))] == [NONE, LOAD]
    watch.took_up(mended)
    assert watch.looked(mended, Monotonic(3)) is NONE
    assert not watch.with_folders


def test_a_file_of_the_refused_code_counts_though_the_running_code_has_it_not() -> None:
    watch = refused(tried={"app": b"2", "new": b"broken"})
    assert watch.paths == {"app", "helper", "new"}
    broken, mended = (at(0, app=b"2", new=each)[1] for each in (b"broken", b"whole"))
    found = [
        watch.looked(broken, Monotonic(2)),
        watch.looked(mended, Monotonic(3)),
        watch.looked(mended, Monotonic(4)),
    ]
    assert found == [NONE, NONE, LOAD]


def test_a_new_name_in_a_folder_counts_after_a_refusal() -> None:
    watch = refused()
    before, after = ({**at(0, app=b"2")[1], "folder": each} for each in (b"names", b"more names"))
    found = [
        watch.looked(before, Monotonic(2)),
        watch.looked(after, Monotonic(3)),
        watch.looked(after, Monotonic(4)),
    ]
    assert found == [NONE, NONE, LOAD]


def test_the_waits_of_refused_code_double_up_to_a_limit() -> None:
    watch, now, waits = refused(), 1.0, list[float]()
    broken = at(0, app=b"2")[1]
    for _ in range(8):
        began = now
        while watch.looked(broken, Monotonic(now)) is NONE:
            now += LOOK_S
        waits.append(now - began)
        watch.refuse(broken, {"app": b"2"}, Monotonic(now))
    assert waits == [min(AGAIN_S * 2**each, AGAIN_S_MAX) for each in range(8)]


def test_refused_code_that_comes_back_must_be_still_before_it_is_tried_again() -> None:
    watch = refused()
    other, same = at(0, app=b"3")[1], at(0, app=b"2")[1]
    watch.looked(other, Monotonic(1 + AGAIN_S))
    found = [watch.looked(same, Monotonic(1 + AGAIN_S + late)) for late in (0.2, 0.7)]
    assert found == [NONE, LOAD]


def test_the_running_code_on_the_disk_again_ends_a_refusal_once() -> None:
    watch = refused()
    assert [watch.looked(at(0)[1], Monotonic(when)) for when in (2, 3)] == [Step.RESTORED, NONE]
    assert watch.paths == RUNNING.keys()


def test_what_is_imported_later_is_watched_as_it_was_read() -> None:
    watch = CodeWatch(dict(RUNNING))
    watch.also({"late": b"1", "app": b"other"})
    assert watch.running == {**RUNNING, "late": b"1"}


CONTENTS = st.sampled_from([b"1", b"2", None])


@given(st.lists(st.tuples(CONTENTS, CONTENTS, st.booleans()), max_size=40))
def test_code_is_loaded_only_when_it_differs_and_was_still_and_never_twice_in_a_row(
    looks: list[tuple[bytes | None, bytes | None, bool]],
) -> None:
    watch, now = CodeWatch(dict(RUNNING)), 0.0
    seen: list[tuple[float, dict[str, bytes | None]]] = []
    for app, helper, works in looks:
        now += LOOK_S
        contents = {"app": app, "helper": helper}
        before = dict(watch.running)
        seen.append((now, contents))
        step = watch.looked(contents, Monotonic(now))
        if step is not LOAD:
            continue
        assert contents != before
        still = [each for when, each in seen if when >= now - SETTLE_S]
        assert all(each == contents for each in still)
        assert len(still) > 1
        if works:
            watch.took_up(contents)
            assert watch.looked(contents, Monotonic(now)) is NONE
        else:
            watch.refuse(contents, {}, Monotonic(now))
            assert watch.looked(contents, Monotonic(now)) is NONE
