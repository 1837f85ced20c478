"""Owns what `poller consumers` does: it lists the consumers that mappings have of their own, and removes those that no mapping wants."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.commands.consumers.configured import ConsumerUse, NamedStream, streams, uses
from adapters.commands.consumers.registered import DELETING, RegisteredConsumer, listed, removed
from poller.commands.fitting import Screen, ScreenPage, show
from poller.commands.operations.command import NOT_DONE, Manner, NobodyToAsk, Surroundings, agreed
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import environment
from poller.config.daemon_plan import daemon_plan
from poller.config.settings import Settings
from poller.domain.arns import Arn
from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.streams.consumer_names import PREFIX
from poller.domain.untrusted.numbers import date_of
from poller.domain.wording.numbers_of import number_of
from poller.plugins import Environment, Registry

NO_MAPPING = "no mapping"
NO_FAN_OUT = "has no fan_out"
SHOWN_MAX = 5
"""Names that a question tells."""
OTHERS_FILES = "a daemon with another configuration may have it"
WHICH = "write the NAME of a consumer, as `poller consumers list` shows it, or --orphans for all that no mapping wants"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumersAsked:
    """Where to look: the configuration, and streams that it no longer names."""

    settings: Settings
    registry: Registry
    others: Sequence[NamedStream] = ()


@dataclass(slots=True)
class _Found:
    """The consumers, and the streams that could not be asked, one line each."""

    consumers: list[RegisteredConsumer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _Refused(Exception):
    """What was asked for is not done. The text says why, and what to do."""


def list_consumers(asked: ConsumersAsked, *, as_json: bool) -> int:
    """Shows the consumers of all streams; returns the exit status."""

    async def act(env: Environment) -> int:
        found = await _found(env, asked)
        print_problems(found.problems)
        if as_json:
            print(json.dumps([_document(each) for each in found.consumers], indent=2))
        else:
            show(lambda screen: _page(found.consumers, screen))
        return FAILED if found.problems else 0

    return _run(asked, act)


def remove_consumers(
    asked: ConsumersAsked,
    name: str | None,
    *,
    orphans: bool,
    manner: Manner,
    around: Surroundings | None = None,
) -> int:
    """Removes one consumer, or all that no mapping wants, unless it is a dry run or not meant; returns the exit status."""

    async def act(env: Environment) -> int:
        if (name is None) is not orphans:
            raise _Refused(WHICH)
        found = await _found(env, asked)
        chosen = _named(name, found) if name is not None else _orphans(found)
        print_problems(found.problems)
        failed = FAILED if found.problems else 0
        if not chosen:
            print("[]" if manner.as_json else "no consumer without a mapping")
            return failed
        said = _sentence(chosen)
        if manner.dry_run:
            _show_plan(chosen, said, manner)
            return failed
        if not manner.yes and not agreed(said, around or Surroundings()):
            return NOT_DONE
        return await _remove(env, chosen, manner) or failed

    return _run(asked, act)


def _run(asked: ConsumersAsked, act: Callable[[Environment], Awaitable[int]]) -> int:
    async def main() -> int:
        env = environment(asked.settings)
        try:
            return await act(env)
        finally:
            await env.shared.close()

    try:
        return asyncio.run(main())
    except InvalidConfiguration as error:
        print_problems(error.problems)
    except (_Refused, NobodyToAsk) as error:
        print_problems([str(error)])
    return FAILED


async def _found(env: Environment, asked: ConsumersAsked) -> _Found:
    known: list[ConsumerUse] = uses(daemon_plan(asked.settings).mappings, asked.registry)
    found = _Found()
    for stream in streams(known, asked.others):
        try:
            found.consumers += await listed(env, stream, known)
        except PortError as error:
            found.problems.append(
                f"{stream.arn}: {error.reason}; docs/operate/iam.md has what the role needs"
            )
    return found


def _named(name: str, found: _Found) -> list[RegisteredConsumer]:
    """The consumers with this name, of as many streams. Raises _Refused for one that is not to be removed, and if there is none."""
    if not name.startswith(PREFIX):
        raise _Refused(
            f"{name}: only consumers that poller has registered are removed here, and their names begin with {PREFIX}; "
            "aws kinesis deregister-stream-consumer removes others"
        )
    chosen = [each for each in found.consumers if each.name == name]
    for each in chosen:
        if each.use is not None and each.use.wanted:
            raise _Refused(
                f"{name}: is the consumer of mapping {each.use.mapping}, which has fan_out: true and would register it again; "
                "remove fan_out or the mapping from the configuration first"
            )
    if not chosen:
        print_problems(found.problems)
        raise _Refused(
            f"{name}: no stream of the configuration has this consumer; name its stream with --stream ARN if no mapping reads it any more"
        )
    return chosen


def _orphans(found: _Found) -> list[RegisteredConsumer]:
    return [each for each in found.consumers if not each.wanted and each.status != DELETING]


def _sentence(chosen: Sequence[RegisteredConsumer]) -> str:
    """What the command will do."""
    if len(chosen) == 1:
        (one,) = chosen
        doubt = f"; {OTHERS_FILES}" if one.use is None else ""
        return f"remove consumer {one.name} of {one.stream.arn} ({_whose(one)}{doubt}), so that its records are pushed to nobody any more"
    shown = ", ".join(each.name for each in chosen[:SHOWN_MAX])
    more = f" and {len(chosen) - SHOWN_MAX} more" if len(chosen) > SHOWN_MAX else ""
    return f"remove {number_of(len(chosen), 'consumer')} that no mapping of this configuration wants: {shown}{more}; {OTHERS_FILES}"


def _show_plan(chosen: Sequence[RegisteredConsumer], said: str, manner: Manner) -> None:
    if manner.as_json:
        print(json.dumps({"consumers": [_document(each) for each in chosen], "sentence": said}, indent=2))
    else:
        print(f"would do: {said}")


async def _remove(env: Environment, chosen: Sequence[RegisteredConsumer], manner: Manner) -> int:
    """Removes them one after the other, and goes on after one that cannot be removed."""
    done: list[RegisteredConsumer] = []
    problems: list[str] = []
    for each in chosen:
        try:
            await removed(env, each)
        except PortError as error:
            problems.append(f"{each.name} of {each.stream.arn}: {error.reason}")
        else:
            done.append(each)
    print_problems(problems)
    if manner.as_json:
        print(json.dumps([_document(each) for each in done], indent=2))
    else:
        for each in done:
            print(f"{each.name} of {each.stream.arn}: is being removed")
    return FAILED if problems else 0


def _document(consumer: RegisteredConsumer) -> dict[str, Any]:
    return {
        "name": consumer.name,
        "arn": consumer.arn,
        "stream": consumer.stream.arn,
        "mapping": None if consumer.use is None else consumer.use.mapping,
        "fan_out": consumer.wanted,
        "status": consumer.status,
        "since": _since(consumer),
    }


def _page(consumers: Sequence[RegisteredConsumer], screen: Screen | int) -> ScreenPage:
    """Shows a few lines for each consumer, the first with its name."""
    page = ScreenPage(screen)
    for each in consumers:
        page.add(f"{each.name} {each.status}")
        arn = Arn.parse(each.stream.arn)
        page.add(f"{arn.resource} in {arn.region}, since {_since(each) or 'an unknown time'}", depth=1)
        page.add(_whose(each), depth=1)
    if not consumers:
        page.add(
            "no consumers that mappings have of their own, on the streams that were looked at; --stream ARN looks at one that no mapping reads any more"
        )
    if page.shortened:
        page.line("")
        page.add("poller consumers list --json has all of what is cut")
    return page


def _whose(consumer: RegisteredConsumer) -> str:
    if consumer.use is None:
        return NO_MAPPING
    return f"mapping {consumer.use.mapping}" + ("" if consumer.wanted else f", which {NO_FAN_OUT}")


def _since(consumer: RegisteredConsumer) -> str | None:
    return None if consumer.since is None else date_of(consumer.since).isoformat(timespec="seconds")
