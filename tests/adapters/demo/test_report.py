"""The demo's judgement: it accepts at-least-once order and nothing less."""

from pathlib import Path
from random import Random

import pytest

from adapters.demo.dead_letters import DeadLetters, between
from adapters.demo.journal import Journal, Line, Reader, decode
from adapters.demo.ledger import Ledger
from adapters.demo.load import Item, Kind, Source, by_lane, load, planned
from adapters.demo.report import Evidence, make_report

LANE = "lane-00"


def items(*kinds: Kind, source: Source = Source.ORDERS) -> tuple[Item, ...]:
    """One lane with an item of each kind."""
    return tuple(Item(source, LANE, number, kind) for number, kind in enumerate(kinds))


FIVE = items(*[Kind.PLAIN] * 5)
POISONED = items(Kind.PLAIN, Kind.POISON, Kind.PLAIN)


def seen(lane: tuple[Item, ...], *steps: tuple[int, str, str], source: Source = Source.ORDERS) -> Evidence:
    """What is known after these invocations.

    Each step is a life, the numbers delivered ("012") and those of them that failed; an asterisk for failed: the
    invocation never ended.
    """
    everything = {each: lane if each is source else () for each in Source}
    ledger = Ledger(everything)
    for index, (life, numbers, failed) in enumerate(steps):
        given = tuple(lane[int(number)] for number in numbers)
        ledger.take(Line(source, f"request {index}", life, True, given))
        if failed != "*":
            bad = frozenset(place for place, number in enumerate(numbers) if number in failed)
            ledger.take(Line(source, f"request {index}", life, False, given, bad))
    return Evidence(everything, ledger, DeadLetters())


@pytest.mark.parametrize(
    "steps",
    [
        [(1, "01234", "")],
        [(1, "01", ""), (1, "234", "")],
        [(1, "01234", "01234"), (1, "01", ""), (1, "234", "")],
        [(1, "01234", "234"), (1, "234", "")],
        [(1, "012", ""), (1, "34", "*"), (2, "1234", "")],
        [(1, "012", ""), (2, "01", ""), (2, "234", "")],
        [(1, "01", "*"), (2, "01234", "")],
    ],
)
def test_at_least_once_in_order_is_accepted(steps: list[tuple[int, str, str]]) -> None:
    assert make_report(seen(FIVE, *steps)).problems == ()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([(1, "0123", "")], "never reached the function and not in its on-failure destination: lane-00/4"),
        ([(1, "0123", ""), (1, "4", "4")], "neither processed nor in its on-failure destination: lane-00/4"),
        ([(1, "0134", ""), (1, "2", "")], "lane-00/2 was left out before orders lane-00/4"),
        ([(1, "01", ""), (1, "34", ""), (1, "2", "")], "lane-00/2 was left out before orders lane-00/4"),
        ([(1, "10234", "")], "1, 0, 2, 3, 4 came in this order"),
        ([(1, "01", "1"), (1, "234", ""), (1, "1", "")], "lane-00/1 was left out"),
        ([(1, "01", ""), (1, "1234", "")], "lane-00/1 came again although the daemon had not been restarted"),
        ([(1, "01", "*"), (1, "01234", "")], "its lane was in two invocations at once"),
        ([(1, "0123", ""), (2, "01", ""), (2, "34", "")], "lane-00/2 was left out"),
        ([(1, "01", "*"), (2, "1234", "")], "lane-00/0 was left out"),
    ],
)
def test_whatever_breaks_it_is_reported(steps: list[tuple[int, str, str]], words: str) -> None:
    problems = make_report(seen(FIVE, *steps)).problems
    assert any(words in problem for problem in problems), problems


def test_an_invocation_that_outlived_its_daemon_moves_nothing() -> None:
    evidence = seen(FIVE, (1, "012", "*"), (2, "012", ""))
    evidence.ledger.take(Line(Source.ORDERS, "request 0", 1, False, FIVE[:3]))
    evidence.ledger.take(Line(Source.ORDERS, "later", 2, True, FIVE[3:]))
    evidence.ledger.take(Line(Source.ORDERS, "later", 2, False, FIVE[3:]))
    assert make_report(evidence).problems == ()


def test_poison_may_be_left_out_once_it_lies_at_its_destination() -> None:
    evidence = seen(POISONED, (1, "012", "012"), (1, "0", ""), (1, "1", "1"), (1, "2", ""))
    before = make_report(evidence).problems
    evidence.dead_letters.items[Source.ORDERS].append(POISONED[1])
    assert before
    assert make_report(evidence).problems == ()
    assert evidence.complete


def test_a_healthy_record_at_the_destination_is_a_problem_unless_daemons_were_killed() -> None:
    evidence = seen(FIVE, (1, "01234", ""))
    evidence.dead_letters.items[Source.ORDERS].append(FIVE[3])
    assert "although nothing is wrong with them: lane-00/3" in make_report(evidence).problems[0]
    assert make_report(evidence, lenient=True).problems == ()


def test_messages_behind_poison_in_their_group_may_share_its_grave() -> None:
    lane = items(Kind.PLAIN, Kind.POISON, Kind.PLAIN, source=Source.PAYMENTS)
    evidence = seen(lane, (1, "012", "12"), (1, "12", "12"), source=Source.PAYMENTS)
    evidence.dead_letters.items[Source.PAYMENTS] += lane[1:]
    found = make_report(evidence)
    assert found.problems == ()
    assert "lane-00/2 stood behind the poison" in found.notes[0]


def test_a_fifo_message_that_was_deleted_need_not_come_again() -> None:
    lane = items(*[Kind.PLAIN] * 4, source=Source.PAYMENTS)
    evidence = seen(lane, (1, "012", ""), (2, "02", ""), (2, "3", ""), source=Source.PAYMENTS)
    assert make_report(evidence).problems == ()


def test_a_record_that_should_have_been_filtered_out_is_a_problem() -> None:
    lane = items(Kind.PLAIN, Kind.NOISE)
    assert "lane-00/1 reached the function" in make_report(seen(lane, (1, "01", ""))).problems[0]


def test_the_daemon_must_say_that_it_filtered_as_many_as_there_are() -> None:
    lane = items(Kind.PLAIN, Kind.NOISE)
    evidence = seen(lane, (1, "0", ""))
    evidence.counters = {source: {} for source in Source}
    assert not evidence.complete
    assert "1 record fewer than the filter says" in make_report(evidence).problems[0]
    evidence.counters = {source: {"filtered_out_event_count": 1.0} for source in Source}
    assert make_report(evidence).problems == ()


def test_messages_left_in_a_queue_are_a_problem() -> None:
    evidence = seen(FIVE, (1, "01234", ""))
    evidence.left[Source.MAILS] = 2
    assert make_report(evidence).problems == ("mails: 2 messages are still in the queue",)


def test_the_same_seed_gives_the_same_load_with_one_poison_a_source() -> None:
    first, second = load(1200, 5), load(1200, 5)
    assert first == second
    assert sum(map(len, first.values())) >= 1200
    for source, its in first.items():
        assert sum(item.kind is Kind.POISON for item in its) == 1
        assert any(item.kind is Kind.NOISE for item in its) is source.filtered


def test_lanes_are_numbered_without_gaps() -> None:
    for its in by_lane(planned(Source.ORDERS, 200, Random(1))).values():
        assert [item.number for item in its] == list(range(len(its)))


def test_a_line_that_is_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    reader, line = Reader(path), Line(Source.MAILS, "r", 1, False, FIVE[:1], frozenset({0}))
    whole = line.encode()
    assert list(reader.fresh()) == []
    path.write_bytes(whole + whole[:7])
    assert list(reader.fresh()) == [decode(whole)]
    path.write_bytes(whole + whole)
    assert [each.request for each in reader.fresh()] == ["r"]


def test_an_item_stumbles_once_whoever_asks(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert Journal(path).first_time(FIVE[0])
    assert not Journal(path).first_time(FIVE[0])
    assert Journal(path).first_time(FIVE[1])


def test_a_document_means_the_records_of_its_shard_between_its_sequence_numbers() -> None:
    lane = items(Kind.PLAIN, Kind.NOISE, Kind.POISON, Kind.PLAIN)
    places = {("shard-0", 10 + number): item for number, item in enumerate(lane)}
    batch = {"shardId": "shard-0", "startSequenceNumber": "11", "endSequenceNumber": "12"}
    assert between(batch, places) == [lane[2]]
    assert between({**batch, "shardId": "shard-1"}, places) == []
