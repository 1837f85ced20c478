"""Owns facts of how one worker keeps to its share of a function's rate."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.policies import RatePolicy
from poller.rules.flow_control.rate import AHEAD_S, QUANTUM_S, Buy, RateBalance, Ready, Withhold


def test_a_limit_is_bought_in_parts_of_a_tenth_of_a_second_and_of_one_unit_at_least() -> None:
    fast, slow = RateBalance(RatePolicy(200.0)), RateBalance(RatePolicy(0.5))
    assert fast.step(1, 1.0) == Buy("invocations", 20.0, QUANTUM_S)
    assert slow.step(1, 1.0) == Buy("invocations", 1.0, 2.0)
    assert slow.step(1, 0.5) == Buy("invocations", 1.0, 4.0)


def test_a_worker_without_a_share_buys_nothing() -> None:
    assert RateBalance(RatePolicy(5.0)).step(1, 0.0) == Withhold()


def test_a_batch_larger_than_the_balance_is_paid_for_by_the_purchases_after_it() -> None:
    balance = RateBalance(RatePolicy(records_per_s=10.0))
    first = balance.step(100, 1.0)
    assert first == Buy("records", 1.0, 0.1)
    balance.bought(first)
    assert balance.step(100, 1.0) == Ready()
    balance.issue(100)
    balance.started(100, 100, 1.0)
    bought = 0
    while isinstance(step := balance.step(100, 1.0), Buy):
        balance.bought(step)
        bought += 1
    assert bought == 100


def test_few_calls_are_ahead_of_the_rate() -> None:
    balance = RateBalance(RatePolicy(30.0))
    for _ in range(100):
        match balance.step(1, 0.1):
            case Buy() as purchase:
                balance.bought(purchase)
            case Ready():
                balance.issue(1)
            case Withhold():
                break
    assert balance._calls == 3, "a second of its share"


def test_what_did_not_start_is_put_back_and_saves_nothing_up() -> None:
    balance = RateBalance(RatePolicy(1000.0, 1000.0))
    for _ in range(10):
        while isinstance(step := balance.step(100, 1.0), Buy):
            balance.bought(step)
        assert step == Ready()
        balance.issue(100)
    for _ in range(10):
        balance.returned(100, 1.0)
    assert {name: limit.balance for name, limit in balance._limits.items()} == {
        "invocations": pytest.approx(100.0),
        "records": pytest.approx(100.0),
    }
    assert all(limit.ahead == 0 for limit in balance._limits.values())


MOVES = st.lists(
    st.tuples(st.sampled_from(["issue", "start", "return", "wait"]), st.integers(1, 20), st.floats(0, 2)),
    max_size=150,
)


@given(MOVES, st.sampled_from([0.5, 3.0, 40.0]), st.sampled_from([None, 5.0, 100.0]))
@settings(max_examples=300, deadline=None)
def test_in_any_time_no_more_starts_than_the_rate_allows_and_a_second_of_it(
    moves: list[tuple[str, int, float]], invocations: float, records: float | None
) -> None:
    balance = RateBalance(RatePolicy(invocations, records))
    now, last = 0.0, dict[str, float]()
    ahead: list[int] = []
    starts: list[tuple[float, int]] = []
    for kind, size, passes in moves:
        match kind:
            case "wait":
                now += passes
            case "issue":
                while isinstance(step := balance.step(size, 1.0), Buy):
                    now = max(now, last.get(step.limit, now) + step.period_s)
                    last[step.limit] = now
                    balance.bought(step)
                if isinstance(step, Ready):
                    balance.issue(size)
                    ahead.append(size)
            case "start" if ahead:
                issued = ahead.pop()
                actual = min(issued, size)
                balance.started(issued, actual, 1.0)
                starts.append((now, actual))
            case "return" if ahead:
                balance.returned(ahead.pop(0), 1.0)
    for first in range(len(starts)):
        for end in range(first, len(starts)):
            took_s = starts[end][0] - starts[first][0]
            some = [size for _, size in starts[first : end + 1]]
            slack = 2 * max(1.0, invocations * QUANTUM_S) + max(1.0, invocations * AHEAD_S)
            assert len(some) <= invocations * took_s + slack + 1e-6
            if records is not None:
                most = 2 * max(1.0, records * QUANTUM_S) + max(20.0, records * AHEAD_S) + 20
                assert sum(some) <= records * took_s + most + 1e-6
