"""Owns facts of how workers share the rate of a function, and of closings that reach all of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.records import Monotonic, WorkerId
from poller.rules.workers.function_shares import ANNOUNCED_MAX, ANNOUNCED_S, SEEN_MAX, FunctionShares
from poller.rules.workers.worker_report import WorkerReport, short

A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


class Group:
    """Workers with rows; each beats and lists when a test says so."""

    def __init__(self) -> None:
        self.workers: dict[WorkerId, FunctionShares] = {}
        self.rows: dict[WorkerId, WorkerReport] = {}
        self.now = 0.0

    def start(self, worker: WorkerId) -> FunctionShares:
        found = self.workers[worker] = FunctionShares(worker)
        found.join("orders")
        return found

    def beat(self, worker: WorkerId) -> tuple[str, ...]:
        """A heartbeat and a listing; returns the functions that were closed elsewhere."""
        shares = self.workers[worker]
        claims, closed = shares.report(Monotonic(self.now))
        self.rows[worker] = WorkerReport(functions=claims, closed=closed)
        shares.written(claims)
        return shares.listed(
            {each: row for each, row in self.rows.items() if each in self.workers and each != worker}
        ).closed

    def total(self) -> float:
        return sum(each.share("orders") for each in self.workers.values())


def test_a_lone_worker_has_the_whole_rate_after_two_heartbeats() -> None:
    group = Group()
    alone = group.start(A)
    assert alone.share("orders") == 0.0
    group.beat(A)
    assert alone.share("orders") == 0.0, "it has not claimed anything yet"
    group.beat(A)
    assert alone.share("orders") == 1.0


def test_a_worker_that_comes_gets_its_part_when_the_others_have_given_theirs_up() -> None:
    group = Group()
    group.start(A)
    for _ in range(2):
        group.beat(A)
    group.start(B)
    shares = []
    for _ in range(3):
        for worker in (B, A):
            group.beat(worker)
        shares.append((group.workers[A].share("orders"), group.workers[B].share("orders")))
    assert shares == [(0.5, 0.0), (0.5, 0.0), (0.5, 0.5)]


def test_the_part_of_a_worker_that_is_gone_is_taken_over() -> None:
    group = Group()
    for worker in (A, B):
        group.start(worker)
    for _ in range(4):
        for worker in (A, B):
            group.beat(worker)
    assert group.total() == 1.0
    del group.workers[B]
    for _ in range(2):
        group.beat(A)
    assert group.workers[A].share("orders") == 1.0


def test_a_worker_that_does_not_have_the_function_has_no_part() -> None:
    group = Group()
    for worker in (A, B):
        group.start(worker)
    group.workers[B].leave("orders")
    group.workers[B].join("other")
    for _ in range(3):
        for worker in (A, B):
            group.beat(worker)
    assert (group.workers[A].share("orders"), group.workers[B].share("orders")) == (1.0, 0.0)


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["start", "beat", "gone"])), max_size=60)
)
@settings(max_examples=300)
def test_the_parts_never_add_up_to_more_than_the_whole(moves: list[tuple[WorkerId, str]]) -> None:
    group = Group()
    for worker, move in moves:
        match move:
            case "start" if worker not in group.workers:
                group.start(worker)
            case "beat" if worker in group.workers:
                group.beat(worker)
            case "gone":
                group.workers.pop(worker, None)
                group.rows.pop(worker, None)
        assert group.total() <= 1.0 + 1e-9


def test_a_closing_reaches_every_worker_once() -> None:
    group = Group()
    for worker in (A, B, C):
        group.start(worker)
        group.beat(worker)
    group.workers[A].announce_closed("orders", number=7, now=Monotonic(group.now))
    assert [group.beat(worker) for worker in (A, B, C)] == [(), ("orders",), ("orders",)]
    assert [group.beat(worker) for worker in (A, B, C)] == [(), (), ()]
    group.workers[A].announce_closed("orders", number=8, now=Monotonic(group.now))
    assert [group.beat(worker) for worker in (A, B)] == [(), ("orders",)]


def test_a_closing_is_not_repeated_when_its_worker_was_not_heard_for_a_time() -> None:
    group = Group()
    for worker in (A, B):
        group.start(worker)
        group.beat(worker)
    group.workers[A].announce_closed("orders", number=7, now=Monotonic(group.now))
    group.beat(A)
    assert group.beat(B) == ("orders",)
    stopped, row = group.workers.pop(A), group.rows.pop(A)
    assert group.beat(B) == (), "it takes A for dead"
    group.workers[A], group.rows[A] = stopped, row
    group.beat(A)
    assert group.beat(B) == (), "A announces the same closing still"
    stopped.announce_closed("orders", number=9, now=Monotonic(group.now))
    group.beat(A)
    assert group.beat(B) == ("orders",)


def test_closings_of_any_number_of_workers_are_remembered_in_bounded_memory() -> None:
    shares = FunctionShares(A)
    shares.join("orders")
    for number in range(SEEN_MAX + 5):
        row = WorkerReport(closed={short("orders"): number})
        assert shares.listed({WorkerId(f"w{number}"): row}).closed == ("orders",)
    assert len(shares._seen) == SEEN_MAX


def test_a_closing_is_announced_for_a_while_and_not_of_any_number_of_functions() -> None:
    group = Group()
    shares = group.start(A)
    for number in range(ANNOUNCED_MAX + 5):
        shares.announce_closed(f"f{number}", number=number, now=Monotonic(0.0))
    _, closed = shares.report(Monotonic(ANNOUNCED_S - 1))
    assert len(closed) == ANNOUNCED_MAX
    assert short("f0") not in closed
    assert shares.report(Monotonic(ANNOUNCED_S))[1] == {}
