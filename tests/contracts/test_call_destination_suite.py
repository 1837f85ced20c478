"""The contract of destinations of asynchronous calls, as plug-in authors get it, on a directory and on a queue of an emulator."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.destinations.file import FileDestination
from poller.call_queue_ports import CallDestination
from poller.domain.records import JsonObject
from poller.testing.call_destination import (
    CALLS,
    DEAD_LETTERS,
    NO_DEAD_LETTERS,
    CallDestinationScenario,
    call_notice,
    lost,
)
from tests.contracts.test_call_destinations import Place, credentials, emulator, place, sent
from tests.emulators import Emulator

__all__ = ["credentials", "emulator"]


class Directory:
    """A CallDestinationWorld in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._destination = FileDestination(path)

    @property
    def destination(self) -> CallDestination:
        return self._destination

    async def calls(self, at_least: int) -> Sequence[JsonObject]:
        return [json.loads(line) for line in (self._path / "orders.async.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("scenario", [*CALLS, *NO_DEAD_LETTERS], ids=lambda scenario: scenario.__name__)
def test_a_directory_is_a_destination_of_calls(scenario: CallDestinationScenario, tmp_path: Path) -> None:
    asyncio.run(scenario(Directory(tmp_path)))


class Queue:
    """A CallDeadLetterWorld on an emulator."""

    def __init__(self, opened: Place) -> None:
        self._place = opened

    @property
    def destination(self) -> CallDestination:
        return self._place.destination

    async def calls(self, at_least: int) -> Sequence[JsonObject]:
        return [json.loads(each["Body"]) for each in await self._place.messages(at_least)]

    async def dead_letters(self, at_least: int) -> Sequence[tuple[bytes, str, str, str]]:
        found = []
        for message in await self._place.messages(at_least):
            values = {name: value for name, (_, value) in sent(message).items()}
            said = (values["RequestID"], values["ErrorCode"], values["ErrorMessage"])
            found.append((message["Body"].encode(), *said))
        return found


@pytest.mark.parametrize("scenario", [*CALLS, *DEAD_LETTERS], ids=lambda scenario: scenario.__name__)
def test_a_queue_is_a_destination_of_calls_and_dead_letters(
    scenario: CallDestinationScenario, emulator: Emulator
) -> None:
    async def run() -> None:
        async with place("sqs", emulator) as opened:
            await scenario(Queue(opened))

    asyncio.run(run())


def test_what_has_another_form_counts_as_lost() -> None:
    assert lost([{"version": "1.0"}], [call_notice(3)]) == [call_notice(3).call]
    assert lost([json.loads(call_notice(3).documents[2])], [call_notice(3)]) == []
