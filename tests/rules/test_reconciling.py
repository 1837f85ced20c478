"""The comparison of the mappings that should run with those that do run, and the states (aws-behaviour#states)."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.records import MappingId
from poller.domain.rows import MappingState
from poller.rules.reconciling import (
    BUSY,
    Drain,
    Forget,
    RunningMapping,
    StartMapping,
    Wanted,
    change_of,
    created,
    reconcile,
    result_of,
    shown,
    updated,
)

M = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
S = MappingState

CASES = [
    ("a new mapping starts", Wanted(spec=1), None, [StartMapping(M, 1)], S.CREATING),
    ("one that runs as wanted is left alone", Wanted(spec=1), RunningMapping(spec=1), [], S.ENABLED),
    ("another spec drains first", Wanted(spec=2), RunningMapping(spec=1), [Drain(M)], S.UPDATING),
    (
        "what drains is not asked again, and nothing starts beside it",
        Wanted(spec=2),
        RunningMapping(spec=1, stopping=True),
        [],
        S.UPDATING,
    ),
    (
        "what was wanted again while it drains starts anew when it has drained",
        Wanted(spec=1),
        RunningMapping(spec=1, stopping=True),
        [],
        S.UPDATING,
    ),
    (
        "when it has drained, the new one starts",
        Wanted(spec=2, change=S.UPDATING),
        None,
        [StartMapping(M, 2)],
        S.UPDATING,
    ),
    (
        "a disabled one drains",
        Wanted(spec=1, enabled=False),
        RunningMapping(spec=1),
        [Drain(M)],
        S.DISABLING,
    ),
    ("a disabled one stays away", Wanted(spec=1, enabled=False), None, [], S.DISABLED),
    (
        "an enabled one starts",
        Wanted(spec=1, change=S.ENABLING),
        None,
        [StartMapping(M, 1)],
        S.ENABLING,
    ),
    (
        "a deleted one drains",
        Wanted(spec=1, deleting=True),
        RunningMapping(spec=1),
        [Drain(M)],
        S.DELETING,
    ),
    (
        "a deleted one that has drained is forgotten",
        Wanted(spec=1, deleting=True),
        None,
        [Forget(M)],
        S.DELETING,
    ),
    (
        "one that could not be opened yet is still on its way",
        Wanted(spec=1, change=S.ENABLING),
        RunningMapping(spec=1, tried=False),
        [],
        S.ENABLING,
    ),
    ("a broken one is shown as such", Wanted(spec=1), RunningMapping(spec=1, broken=True), [], S.BROKEN),
    (
        "a broken one that shall be another is on its way",
        Wanted(spec=2),
        RunningMapping(spec=1, broken=True),
        [Drain(M)],
        S.UPDATING,
    ),
]


@pytest.mark.parametrize(
    ("fact", "wanted", "run", "commands", "state"), CASES, ids=[case[0] for case in CASES]
)
def test_what_is_done_and_shown(
    fact: str, wanted: Wanted, run: RunningMapping | None, commands: list[object], state: MappingState
) -> None:
    assert reconcile({M: wanted}, {M: run} if run is not None else {}) == commands, fact
    assert shown(wanted, run) is state


def test_what_nobody_wants_any_more_drains() -> None:
    assert reconcile({}, {M: RunningMapping(spec=1)}) == [Drain(M)]


@pytest.mark.parametrize(
    ("enabled", "queue", "state"),
    [
        (True, False, S.CREATING),
        (True, True, S.CREATING),
        (False, False, S.CREATING),
        (False, True, S.DISABLED),
    ],
)
def test_states_in_the_answer_to_a_create_request(enabled: bool, queue: bool, state: MappingState) -> None:
    assert created(enabled=enabled, queue=queue) is state


@pytest.mark.parametrize(
    ("before", "enabled", "queue", "state"),
    [
        (True, True, False, S.UPDATING),
        (True, True, True, S.UPDATING),
        (False, True, False, S.ENABLING),
        (False, True, True, S.ENABLING),
        (True, False, False, S.DISABLING),
        (True, False, True, S.DISABLING),
        (False, False, True, S.DISABLED),
        (False, False, False, S.UPDATING),
    ],
)
def test_states_in_the_answer_to_an_update_request(
    before: bool, enabled: bool, queue: bool, state: MappingState
) -> None:
    assert updated(before=before, enabled=enabled, queue=queue) is state


def test_a_change_is_called_by_its_answer_until_it_is_applied() -> None:
    assert [change_of(state) for state in (S.CREATING, S.ENABLING, S.UPDATING)] == [
        S.CREATING,
        S.ENABLING,
        S.UPDATING,
    ]
    assert change_of(S.DISABLING) is S.CREATING


def test_a_mapping_at_rest_may_be_changed() -> None:
    assert set(S) - BUSY == {S.ENABLED, S.DISABLED, S.BROKEN}


@pytest.mark.parametrize("ended", list(Ended))
def test_only_success_and_a_partial_report_count_as_ok(ended: Ended) -> None:
    fine = ended in {Ended.SUCCESS, Ended.PARTIAL}
    assert result_of(ended) == ("OK" if fine else "PROBLEM: Function call failed")


IDS = st.sampled_from([MappingId(letter) for letter in "abcd"])
WANTED = st.builds(
    Wanted,
    spec=st.integers(0, 2),
    enabled=st.booleans(),
    deleting=st.booleans(),
    change=st.just(S.UPDATING),
)
RUNNING = st.builds(RunningMapping, spec=st.integers(0, 2), stopping=st.booleans())


@given(wanted=st.dictionaries(IDS, WANTED), running=st.dictionaries(IDS, RUNNING))
def test_whatever_runs_it_comes_to_what_is_wanted_and_never_runs_twice(
    wanted: Mapping[MappingId, Wanted], running: dict[MappingId, RunningMapping]
) -> None:
    known = dict(wanted)
    for _ in range(4):
        for command in reconcile(known, running):
            match command:
                case StartMapping(mapping, spec):
                    assert mapping not in running
                    running[mapping] = RunningMapping(spec=spec)
                case Drain(mapping):
                    running[mapping] = RunningMapping(spec=running[mapping].spec, stopping=True)
                case Forget(mapping):
                    assert mapping not in running
                    del known[mapping]
        running = {mapping: run for mapping, run in running.items() if not run.stopping}
    assert {mapping: run.spec for mapping, run in running.items()} == {
        mapping: each.spec for mapping, each in wanted.items() if each.runs
    }
    assert known == {mapping: each for mapping, each in wanted.items() if not each.deleting}
    assert all(shown(each, running.get(mapping)) not in BUSY for mapping, each in known.items())


@given(
    wanted=st.builds(
        Wanted,
        spec=st.integers(1, 2),
        enabled=st.booleans(),
        deleting=st.booleans(),
        change=st.sampled_from([S.CREATING, S.ENABLING, S.UPDATING]),
    ),
    run=st.none()
    | st.builds(
        RunningMapping,
        spec=st.integers(1, 2),
        tried=st.booleans(),
        stopping=st.booleans(),
        broken=st.booleans(),
    ),
)
def test_the_end_of_the_daemon_is_no_change_of_a_mapping(wanted: Wanted, run: RunningMapping | None) -> None:
    before = None if run is None else replace(run, stopping=False, tried=True)
    settled = shown(wanted, before)
    if run is None and wanted.runs:
        settled = S.ENABLED
    assert shown(wanted, run, ending=True) is settled
