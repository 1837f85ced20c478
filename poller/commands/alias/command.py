"""Owns what `poller alias` does: it shows aliases, shifts one and waits for it, and rolls one back.

What is printed for programs goes to standard output, questions and progress to standard error.
"""

import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from poller.commands.alias.client import AliasClient
from poller.commands.alias.sentences import (
    STATES,
    calls_line,
    named,
    origin,
    rollback_sentence,
    running,
    shares,
    shift_line,
    shift_sentence,
    version_line,
)
from poller.commands.daemon_client import RequestRefused, Unanswered
from poller.commands.fitting import Screen, ScreenPage, print_lines, show
from poller.commands.operations.command import (
    LOOK_S,
    NOT_DONE,
    SILENT_S,
    Manner,
    NobodyToAsk,
    Surroundings,
    agreed,
)
from poller.commands.operations.shell import command_line
from poller.commands.root.problems import FAILED, print_problems
from poller.domain.functions.alias_control import AliasView
from poller.domain.functions.alias_pages import AliasPage, FunctionAliases
from poller.domain.functions.shift_strategies import own_strategy, strategy
from poller.domain.functions.shifts import ENDED, Shift, ShiftState, ShiftStrategy
from poller.domain.untrusted.rendering import as_json as rendered
from poller.domain.untrusted.texts import line_of
from poller.output.progress_line import ProgressLine

TEXT_CHARS_MAX = 2_000
NO_STRATEGY = "--strategy: is missing; write one such as AllAtOnce or Canary10Percent5Minutes, or --percent and --interval-s"
NO_INTERVAL = "--interval-s: is missing; write the seconds after which the rest follows, or with --linear the next share"
NO_PERCENT = "--percent: is missing; write the share of the calls that moves at once, such as 10"
TWO_STRATEGIES = "--strategy: stands beside --percent, --interval-s or --linear; write one of both"
NOTHING = "no function has versions or aliases; functions.NAME.versions and functions.NAME.aliases make them"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftWords:
    """What the options of `poller alias shift` say."""

    to: str
    strategy: str | None = None
    percent: float | None = None
    interval_s: float | None = None
    linear: bool = False
    before: str | None = None
    after: str | None = None
    failure_rate: float | None = None


class WrongOptions(Exception):
    """The options do not make a strategy. The text says which, and what to write."""


def shift(
    client: AliasClient,
    function: str,
    alias: str,
    words: ShiftWords,
    *,
    manner: Manner,
    around: Surroundings | None = None,
) -> int:
    """Begins a shift, unless it is a dry run or not meant, and waits for its end if it is wanted; returns the exit status."""
    around = around or Surroundings()
    try:
        wanted = _strategy(words)
        said = _said(client, function, alias, words, wanted, manner)
        request = _request(words, manner.reason)
        if manner.dry_run:
            _show_plan(request, said, manner)
            return 0
        if not manner.yes and not agreed(said, around):
            return NOT_DONE
        view = client.shift(function, alias, request | {"id": str(uuid.uuid4())})
        if manner.wait:
            view = _waited(client, function, alias, view, manner, around)
    except (Unanswered, NobodyToAsk, WrongOptions) as error:
        print_problems([str(error)])
        return FAILED
    return _end(view, manner)


def roll_back(
    client: AliasClient, function: str, alias: str, *, manner: Manner, around: Surroundings | None = None
) -> int:
    """Rolls the running shift of an alias back, unless it is a dry run or not meant; returns the exit status."""
    try:
        if manner.dry_run or not manner.yes:
            view = client.one(function, alias)
            found = running(view)
            if found is None:
                raise Unanswered(_none_runs(view))
            said = rollback_sentence(view, found)
            if manner.dry_run:
                _show_plan({"reason": manner.reason}, said, manner)
                return 0
            if not agreed(said, around or Surroundings()):
                return NOT_DONE
        view = client.roll_back(function, alias, reason=manner.reason)
    except RequestRefused as error:
        print_problems([_with_way_back(client, function, alias, error)])
        return FAILED
    except (Unanswered, NobodyToAsk) as error:
        print_problems([str(error)])
        return FAILED
    _print(view, manner, f"{named(view)}: all calls go to {shares(view)}")
    return 0


def status(client: AliasClient, function: str | None, alias: str | None, *, as_json: bool) -> int:
    """Prints all aliases, those of a function, or one; returns the exit status."""
    try:
        if function is not None and alias is not None:
            view = client.one(function, alias)
            _show(view, lambda page: _add_alias(page, view), as_json=as_json)
        elif function is not None:
            found = client.of_function(function)
            _show(found, lambda page: _add_function(page, found), as_json=as_json)
        else:
            everything = client.all()
            _show(everything, lambda page: _add_all(page, everything), as_json=as_json)
    except Unanswered as error:
        print_problems([str(error)])
        return FAILED
    return 0


def _strategy(words: ShiftWords) -> ShiftStrategy:
    own = words.percent is not None or words.interval_s is not None or words.linear
    if words.strategy is not None and own:
        raise WrongOptions(TWO_STRATEGIES)
    try:
        if words.strategy is not None:
            return strategy(words.strategy)
        if not own:
            raise WrongOptions(NO_STRATEGY)
        if words.percent is None:
            raise WrongOptions(NO_PERCENT)
        if words.interval_s is None:
            raise WrongOptions(NO_INTERVAL)
        return own_strategy(words.percent, words.interval_s, words.linear)
    except ValueError as error:
        option = "--percent" if words.strategy is None else "--strategy"
        raise WrongOptions(f"{option}: {error}") from None


def _request(words: ShiftWords, reason: str) -> dict[str, Any]:
    """The body of the request."""
    given = {
        "to": words.to,
        "strategy": words.strategy,
        "percent": words.percent,
        "interval_s": words.interval_s,
        "linear": words.linear or None,
        "before": words.before,
        "after": words.after,
        "failure_rate": words.failure_rate,
        "reason": reason or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _said(
    client: AliasClient, function: str, alias: str, words: ShiftWords, wanted: ShiftStrategy, manner: Manner
) -> str:
    """What the shift will do. It is not looked for if nobody is told."""
    if manner.yes and not manner.dry_run:
        return ""
    view = client.one(function, alias)
    return shift_sentence(
        view,
        to=words.to,
        strategy=wanted,
        before=words.before,
        after=words.after,
        failure_rate=words.failure_rate,
    )


def _waited(
    client: AliasClient, function: str, alias: str, view: AliasView, manner: Manner, around: Surroundings
) -> AliasView:
    """Waits until the shift is over; shows progress. An interruption ends the wait, not the shift."""
    began = heard = around.now()
    mine = _id(view)
    with ProgressLine(quiet=manner.as_json, now=around.now) as line:
        try:
            while _id(view) == mine and running(view) is not None and around.now() - began < manner.wait_s:
                line.say(_progress(view))
                around.sleep(LOOK_S)
                try:
                    view, heard = client.one(function, alias), around.now()
                except RequestRefused as error:
                    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR or around.now() - heard >= SILENT_S:
                        raise
                except Unanswered as error:
                    if around.now() - heard >= SILENT_S:
                        raise Unanswered(f"{error}; the shift goes on: {_status_command(view)}") from None
                    line.say(f"{named(view)}: no answer, asking again")
        except KeyboardInterrupt:
            line.clear()
            print(f"poller: not waited for any more; {_status_command(view)}", file=sys.stderr)
    return view


def _id(view: AliasView) -> str:
    return "" if view.shift is None else view.shift.shift


def _progress(view: AliasView) -> str:
    counted = calls_line(view)
    state = "" if view.shift is None else f"{STATES[view.shift.state]}, "
    return line_of(
        f"{named(view)}: {state}{shares(view)}{', ' if counted else ''}{counted}", chars_max=TEXT_CHARS_MAX
    )


def _end(view: AliasView, manner: Manner) -> int:
    """Prints what came of the shift; returns the exit status."""
    found = view.shift
    _print(view, manner, f"{named(view)}: {shares(view)}; {_outcome(view, found)}")
    if found is None or found.state is ShiftState.ROLLED_BACK:
        return NOT_DONE
    return NOT_DONE if manner.wait and found.state not in ENDED else 0


def _outcome(view: AliasView, found: Shift | None) -> str:
    if found is None:
        return "no shift of it is known"
    goes_on = "" if found.state in ENDED else f"; it is not over: {_status_command(view)} says how far it is"
    return f"{shift_line(found)}{goes_on}"


def _status_command(view: AliasView) -> str:
    return command_line(["poller", "alias", "status", view.function, view.name])


def _none_runs(view: AliasView) -> str:
    """That there is nothing to roll back, and how the last shift is undone."""
    last = view.shift
    if last is None or last.state is not ShiftState.DONE:
        return f"no shift of {named(view)} runs; {shares(view)} gets the calls"
    back = ["poller", "alias", "shift", view.function, view.name, "--to", last.old, "--strategy", "AllAtOnce"]
    return f"no shift of {named(view)} runs, the last one is done; {command_line(back)} goes back to version {last.old}"


def _with_way_back(client: AliasClient, function: str, alias: str, error: RequestRefused) -> str:
    """What the daemon refused; if no shift runs, with the command that goes back to the version before."""
    if error.status != HTTPStatus.CONFLICT:
        return str(error)
    try:
        view = client.one(function, alias)
    except Unanswered:
        return str(error)
    return str(error) if running(view) is not None else _none_runs(view)


def _show_plan(request: dict[str, Any], said: str, manner: Manner) -> None:
    if manner.as_json:
        print(json.dumps({"request": request, "sentence": said}))
    else:
        print_lines([f"would do: {said}"])


def _print(view: AliasView, manner: Manner, text: str) -> None:
    if manner.as_json:
        print(rendered(view).decode())
    else:
        print_lines([line_of(text, chars_max=TEXT_CHARS_MAX)])


def _show(found: object, add: Callable[[ScreenPage], None], *, as_json: bool) -> None:
    if as_json:
        print(rendered(found).decode())
        return

    def made(screen: Screen) -> ScreenPage:
        page = ScreenPage(screen)
        add(page)
        return page

    show(made)


def _add_all(page: ScreenPage, found: AliasPage) -> None:
    for each in found.functions:
        _add_function(page, each)
    if not found.functions:
        page.line(NOTHING)


def _add_function(page: ScreenPage, found: FunctionAliases) -> None:
    for view in found.aliases:
        _add_alias(page, view)
    if not found.aliases:
        page.line(f"function {line_of(found.function, chars_max=TEXT_CHARS_MAX)}: no aliases")
    for version in found.versions:
        page.add(version_line(version), depth=1, lines_max=3)


def _add_alias(page: ScreenPage, view: AliasView) -> None:
    page.identifier(f"{named(view)}: {shares(view)}{origin(view)}")
    if view.description:
        page.add(view.description, depth=1)
    if view.shift is not None:
        page.add(shift_line(view.shift), depth=1, lines_max=4)
    if running(view) is not None and (counted := calls_line(view)):
        page.add(counted, depth=1)
