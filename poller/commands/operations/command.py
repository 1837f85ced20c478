"""Owns what `poller retry`, `reset`, `skip`, `pause` and `resume` do: find the target, ask whether it is meant, ask the daemon, wait.

What is printed for programs goes to standard output, questions and progress to standard error.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from poller.commands.daemon_client import RequestRefused, Unanswered
from poller.commands.fitting import print_lines
from poller.commands.operations.daemon_api import DaemonApi
from poller.commands.operations.option_names import in_options
from poller.commands.operations.progress import missing, plan, progress
from poller.commands.operations.replay_ranges import replay_ranges
from poller.commands.operations.sentences import sentence
from poller.commands.operations.shell import command_line
from poller.commands.operations.targets import Target, TargetWords, find_target
from poller.commands.root.problems import FAILED, print_problems
from poller.domain.operations import Action, OperationState, OperationView
from poller.domain.records import Epoch, ShardId
from poller.domain.untrusted.rendering import as_json
from poller.domain.untrusted.texts import line_of
from poller.output.progress_line import ProgressLine
from poller.rules.operations.members import BATCH, BATCH_COUNT, BATCH_FIRST
from poller.rules.operations.reading import OperationRefused
from poller.rules.target_names import UnknownTarget

PLANNED = frozenset({Action.SEEK, Action.REDRIVE})
"""Actions whose dry run the daemon makes: the plan is in the operation, and nothing is done."""
LOOK_S = 0.3
"""The interval at which a command that waits asks how far its operation is."""
NOT_DONE = 1
"""Exit status: the operation has failed, was cancelled, or was not over in time."""
SILENT_S = 30.0
"""So long a command that waits asks again when it gets no answer: the daemon may be restarting, or its store be in trouble."""
PAUSED_S = 5.0
"""After this time a pause is not waited for on parts that nobody has: it holds there as soon as somebody takes them."""
PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
GOES_ON = "the operation was accepted and goes on: poller operations show {id}"
NO_TERMINAL = "nobody can be asked here: add --yes to do it, or --dry-run to see what would happen"
TEXT_CHARS_MAX = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a command goes about it."""

    dry_run: bool = False
    yes: bool = False
    as_json: bool = False
    wait: bool = True
    wait_s: float = 60.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a command needs of its surroundings: a clock, a way to wait, and somebody to ask (None: nobody can be asked)."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    answer: Callable[[str], str] | None = field(
        default_factory=lambda: input if sys.stdin is not None and sys.stdin.isatty() else None
    )


class NobodyToAsk(Exception):
    """There is no terminal to ask at. The text says what to do."""


def operate(
    api: DaemonApi,
    action: Action,
    words: TargetWords,
    members: Mapping[str, Any],
    *,
    manner: Manner,
    around: Surroundings | None = None,
) -> int:
    """Carries out one command; returns its exit status."""
    around = around or Surroundings()
    try:
        target = find_target(api.status(), words, one_shard=action is Action.SKIP)
        now = Epoch(around.now())
        said = sentence(action, target, members, now=now)
        request = _request(action, target, members, manner.reason)
        if manner.dry_run and action in PLANNED:
            request["dry_run"] = True
        elif manner.dry_run:
            with ProgressLine(quiet=manner.as_json, now=around.now) as line:
                lines = (
                    replay_ranges(api, target, members, now=now, say=line.say)
                    if action is Action.REPLAY
                    else ()
                )
            _show_plan(target, request, said, lines, manner)
            return 0
        elif not manner.yes:
            if not agreed(said, around):
                return NOT_DONE
            if action is Action.SKIP:
                request |= _agreed_records(api, words, target, members["records"])
        operation = api.submit(target.mapping.mapping, request)
        if manner.wait:
            operation = wait_until_over(api, operation, manner, around, target)
    except (Unanswered, NobodyToAsk, UnknownTarget, OperationRefused) as error:
        print_problems([in_options(str(error))])
        return FAILED
    return _end(operation, target, manner, words)


def _request(action: Action, target: Target, members: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The document of the request. Its id makes a request that is sent twice the same operation."""
    given = {"shard": target.shard, "lane": target.lane, "group": target.group, "reason": reason or None}
    found = {name: value for name, value in {**given, **members}.items() if value is not None}
    return {"action": action.value, "id": str(uuid.uuid4()), **found}


def _agreed_records(
    api: DaemonApi, words: TargetWords, target: Target, records: str | list[str]
) -> dict[str, Any]:
    """The members that name the records that somebody has agreed to. Others may be at fault by now, and `first` or `batch` would mean those.

    A batch too long to be named is compared with what is at fault now, and then by the worker that skips it. Raises OperationRefused if
    it is another one.
    """
    found = target.fixed_records(records)
    before = target.at_fault()
    if found != BATCH or before is None:
        return {"records": found}
    now = find_target(api.status(), words, one_shard=True).at_fault()
    if now is None or (now.records[0], now.records_count) != (before.records[0], before.records_count):
        raise OperationRefused("records", "another batch is at fault by now; ask again")
    return {
        "records": found,
        BATCH_FIRST: before.records[0].identifier,
        BATCH_COUNT: before.records_count,
    }


def _show_plan(
    target: Target, request: dict[str, Any], said: str, lines: Sequence[str], manner: Manner
) -> None:
    if manner.as_json:
        shown = {name: value for name, value in request.items() if name != "id"}
        shown_plan = {"mapping": target.mapping.mapping, "request": shown, "sentence": said}
        print(json.dumps(shown_plan | ({"ranges": lines} if lines else {})))
    else:
        print_lines([f"would do: {said}", *lines])


def agreed(said: str, around: Surroundings) -> bool:
    """Prints what a command will do and asks whether it is meant. Raises NobodyToAsk."""
    if around.answer is None:
        raise NobodyToAsk(NO_TERMINAL)
    print_lines([said], sys.stderr)
    try:
        answer = around.answer("Do it? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("poller: nothing was done", file=sys.stderr)
    return False


def wait_until_over(
    api: DaemonApi,
    operation: OperationView,
    manner: Manner,
    around: Surroundings,
    target: Target | None = None,
) -> OperationView:
    """Waits until the operation is over, or a pause holds; shows progress. An interruption ends the wait, not the operation."""
    with ProgressLine(quiet=manner.as_json, now=around.now) as line:
        return _waited(api, operation, target, manner, around, line)


def _waited(
    api: DaemonApi,
    operation: OperationView,
    target: Target | None,
    manner: Manner,
    around: Surroundings,
    line: ProgressLine,
) -> OperationView:
    began = heard = around.now()
    pause = operation.action is Action.PAUSE
    try:
        while not operation.state.over and around.now() - began < manner.wait_s:
            late = around.now() - began >= PAUSED_S
            if pause and not (_going_on(operation, target) if late else missing(operation)):
                break
            line.say(f"{operation.action} {progress(operation)}")
            around.sleep(LOOK_S)
            try:
                operation, heard = api.operation(operation.id), around.now()
            except Unanswered as error:
                if _for_good(error) or around.now() - heard >= SILENT_S:
                    raise Unanswered(f"{error}; {GOES_ON.format(id=operation.id)}") from None
                line.say(f"{operation.action} {operation.id}: no answer, asking again")
    except KeyboardInterrupt:
        line.clear()
        print(f"poller: not waited for any more; poller operations show {operation.id}", file=sys.stderr)
    return operation


def _for_good(error: Unanswered) -> bool:
    """Whether asking again is of no use: the daemon refuses who asks, or knows no such operation any more."""
    return (
        isinstance(error, RequestRefused)
        and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
        and error.status not in PASSING
    )


def _going_on(operation: OperationView, target: Target | None) -> list[str]:
    """The parts without a result that some worker had when the command began."""
    shards = () if target is None else target.mapping.shards
    owners = {shard.shard: shard.owner for shard in shards}
    return [part for part in missing(operation) if owners.get(ShardId(part), part)]


def _end(operation: OperationView, target: Target, manner: Manner, words: TargetWords) -> int:
    """Prints what came of the operation; returns the exit status."""
    if manner.as_json:
        print(as_json(operation).decode())
    elif lines := plan(operation):
        print_lines([in_options(each) for each in lines])
    else:
        print_lines([line_of(_said(operation, words), chars_max=TEXT_CHARS_MAX)])
    if operation.state in {OperationState.FAILED, OperationState.CANCELLED}:
        return NOT_DONE
    pause = operation.action is Action.PAUSE
    waited_in_vain = _going_on(operation, target) if pause else not operation.state.over
    return NOT_DONE if manner.wait and waited_in_vain and not operation.state.over else 0


def _said(operation: OperationView, words: TargetWords) -> str:
    """What came of it, or what to do while it is not over."""
    if operation.result:
        return f"{operation.action} {operation.state}: {in_options(operation.result)}"
    if operation.action is Action.PAUSE and not operation.state.over:
        left = missing(operation)
        held = operation.state is OperationState.RUNNING and len(left) < max(len(operation.wanted), 1)
        later = f", not yet on {', '.join(left[:3])}{' …' if len(left) > 3 else ''}" if left else ""
        return f"pause {'in force' if held else operation.state}{later}; it lasts until {_resume(words)}"
    return (
        f"{operation.action} {operation.state}: it is not over yet; poller operations show {operation.id} says what it waits for, "
        f"poller operations cancel {operation.id} ends it"
    )


def _resume(words: TargetWords) -> str:
    """The command that ends a pause of the same target."""
    given = {"--shard": words.shard, "--lane": words.lane, "--group": words.group}
    options = [each for name, value in given.items() if value is not None for each in (name, str(value))]
    return command_line(["poller", "resume", words.mapping, *options])
