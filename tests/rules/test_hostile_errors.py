"""Whatever an invoker answers, a third party's too: verdicts and statuses hold clean, bounded texts that every encoder takes."""

import json

import msgspec
import pytest

from poller.domain.invocations import FunctionError, Outcome, Throttled, Unreachable
from poller.domain.status import STACK_LINES_SHOWN_MAX, LaneStatus, error_document
from poller.rules.responses import ERROR_CHARACTERS_MAX, Deferred, Rejected, ResponseReading, parse
from tests.hostile_texts import HOSTILE, fit

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


@hostile
@pytest.mark.parametrize("kind", ["error", "throttled", "unreachable"])
def test_a_hostile_outcome_gives_a_verdict_that_is_fit_to_be_shown(text: str, kind: str) -> None:
    outcomes: dict[str, Outcome] = {
        "error": FunctionError(text, text, stack_trace=(text,) * 50),
        "throttled": Throttled(text),
        "unreachable": Unreachable(text),
    }
    verdict = parse(outcomes[kind], ["1"], ResponseReading())
    assert isinstance(verdict, (Rejected, Deferred))
    assert fit(verdict.error)
    assert len(verdict.error) <= ERROR_CHARACTERS_MAX


@pytest.mark.parametrize("kind", ["E" * 1_000_000, "E " * 500_000, "a.b.C: " * 100_000])
def test_an_error_with_a_long_type_shows_its_message(kind: str) -> None:
    verdict = parse(FunctionError(kind, "the table is full"), ["1"], ResponseReading())
    assert isinstance(verdict, Rejected)
    assert verdict.error.startswith(kind[:100])
    assert verdict.error.endswith(": the table is full")


UNSEEN = {
    "nothing": "",
    "blanks": " \t\n ",
    "control characters": "".join(map(chr, range(32))),
    "no width": "\u200b\u2060",
    "colours alone": "\x1b[31m\x1b[0m",
}


@pytest.mark.parametrize("kind", UNSEEN.values(), ids=UNSEEN)
def test_an_error_whose_type_cannot_be_seen_has_a_type_of_ours(kind: str) -> None:
    error = FunctionError(kind, "the table is full")
    assert error.error_type == "Function.UnnamedError"
    verdict = parse(error, ["1"], ResponseReading())
    assert isinstance(verdict, Rejected)
    assert verdict.error == "Function.UnnamedError: the table is full"


@hostile
def test_every_error_has_a_type_that_can_be_seen(text: str) -> None:
    assert FunctionError(text, text).error_type.strip()


@hostile
def test_a_hostile_error_gives_a_status_that_is_fit_to_be_shown(text: str) -> None:
    error = error_document(FunctionError(text, text, stack_trace=(text,) * 50))
    assert error is not None
    encoded = msgspec.json.encode(LaneStatus(lane="0", state="waiting", error=error))
    shown = json.loads(encoded)["error"]
    assert all(fit(line) for line in (shown["errorType"], shown["errorMessage"], *shown["stackTrace"]))
    assert len(shown["stackTrace"]) <= STACK_LINES_SHOWN_MAX
    assert len(encoded) < 64 * 1024
