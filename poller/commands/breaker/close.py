"""Owns how `poller breaker close` says what it will do, asks whether it is meant, asks a daemon, and what it prints."""

import json
from http import HTTPStatus

from poller.commands.daemon_client import DaemonClient, RequestRefused, Unanswered, decoded, quoted
from poller.commands.operations.command import NOT_DONE, Manner, NobodyToAsk, Surroundings, agreed
from poller.commands.root.problems import FAILED, print_problems
from poller.domain.status import DaemonStatus, FunctionStatus
from poller.domain.telemetry.labels import BreakerState
from poller.domain.untrusted.texts import line_of

NAME_CHARS_MAX = 1000


def close(daemon: DaemonClient, function: str, *, manner: Manner, around: Surroundings | None = None) -> int:
    """Closes the breaker and says so, unless it is a dry run or not meant; returns the exit status."""
    try:
        if manner.dry_run or not manner.yes:
            status = decoded(daemon.get("/v1/mappings"), DaemonStatus, "status")
            said = _sentence(status, function)
            if manner.dry_run:
                _show_plan(function, said, manner)
                return 0
            if not agreed(said, around or Surroundings()):
                return NOT_DONE
        _close(daemon, function, manner)
    except RequestRefused as error:
        unknown = error.status == HTTPStatus.NOT_FOUND and error.message
        remedy = "; name a function that has a breaker, as `poller status` shows them" if unknown else ""
        print_problems([f"{error}{remedy}"])
        return FAILED
    except (Unanswered, NobodyToAsk) as error:
        print_problems([str(error)])
        return FAILED
    return 0


def _sentence(status: DaemonStatus, function: str) -> str:
    """What the command will do, with the workers where the breaker is not closed as far as that is known.

    Raises Unanswered if no function of this name is known to have a breaker.
    """
    name = line_of(function, chars_max=NAME_CHARS_MAX)
    known = sorted(each.function for each in status.functions if each.breaker is not None or each.breakers)
    if function not in known:
        there = line_of(", ".join(known), chars_max=NAME_CHARS_MAX) or "none"
        raise Unanswered(f"no function {name!r} that runs has a breaker; functions that have one: {there}")
    breakers = [at for each in status.functions if each.function == function for at in each.breakers]
    odd = [
        line_of(at.worker, chars_max=NAME_CHARS_MAX)
        for at in breakers
        if at.breaker.state != BreakerState.CLOSED
    ]
    where = f"it is open at {', '.join(odd)}" if odd else "it is not known to be open at any worker"
    return f"close the circuit breaker of function {name} at all workers, so that its calls begin at once; {where}"


def _show_plan(function: str, said: str, manner: Manner) -> None:
    if manner.as_json:
        print(json.dumps({"function": function, "request": {"reason": manner.reason}, "sentence": said}))
    else:
        print(f"would do: {said}")


def _close(daemon: DaemonClient, function: str, manner: Manner) -> None:
    path = f"/v1/functions/{quoted(function)}/breaker/close"
    body = daemon.ask("POST", path, {"reason": manner.reason})
    state = decoded(body, FunctionStatus, "state of a function")
    print(body.decode() if manner.as_json else _said(state))


def _said(state: FunctionStatus) -> str:
    name = line_of(state.function, chars_max=NAME_CHARS_MAX)
    here = "closed here" if state.breaker is not None else "not in use at this worker"
    return f"function {name}: breaker {here}; the other workers of the store close theirs within seconds"
