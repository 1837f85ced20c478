"""What is checked of a plug-in's settings is what the plug-in is opened with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from poller.clock import LoopClock
from poller.config.daemon_plan import daemon_plan
from poller.config.plugin_settings import plugin_errors, plugins_in
from poller.config.plugin_specs import (
    PluginSpec,
    destination_of,
    function_of,
    shared_source_text,
    source_of,
    store_of,
)
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.plugins import Environment, GivenPlugins, Plugin

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
OTHER = "arn:aws:kinesis:eu-west-1:111122223333:stream/other"


class Plain(BaseModel):
    """Of an invoker that asks for nothing of the daemon's."""

    model_config = ConfigDict(extra="forbid")
    url: str = ""


class Named(Plain):
    """Of one that asks for the function's name."""

    function: str


class Limited(Named):
    """Of one that asks for the limit too."""

    max_concurrency: int | None = None


class Open(Plain):
    """Of one that takes everything."""

    model_config = ConfigDict(extra="allow")


class Located(Plain):
    """Of a source or a destination."""

    arn: str


class Carrying(Located):
    """Of a destination that asks whether its documents should have the event."""

    include_payload: bool = False
    payload_prefix: str | None = None


MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("invokers", "plain"): Plain,
    ("invokers", "named"): Named,
    ("invokers", "limited"): Limited,
    ("invokers", "open"): Open,
    ("sources", "kinesis"): Located,
    ("sources", "sqs"): Located,
    ("destinations", "sqs"): Carrying,
    ("destinations", "s3"): Located,
    ("stores", "memory"): Plain,
    ("control", "http"): Open,
}
INVOKERS = [name for kind, name in MODELS if kind == "invokers"]


class Record:
    """Plug-ins that write down what they were made of, by kind and name."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in MODELS}
        self.registry = GivenPlugins(
            {
                key: Plugin(key[1], model, self._opener(key), check=self._checker(key))
                for key, model in MODELS.items()
            }
        )

    def _opener(self, key: tuple[str, str]) -> Any:
        @asynccontextmanager
        async def open_it(settings: BaseModel, _env: Environment) -> AsyncIterator[None]:
            self.seen[key].append(settings.model_dump())
            yield

        return open_it

    def _checker(self, key: tuple[str, str]) -> Any:
        def check(settings: BaseModel) -> list[Any]:
            self.seen[key].append(settings.model_dump())
            return []

        return check


def document(own: dict[str, Any]) -> dict[str, Any]:
    """One function of each invoker with these settings, and a mapping of it; with a source of each kind."""
    failure = {"OnFailure": {"Destination": QUEUE}}
    carried = {"include_payload": True, "payload_prefix": "s3://failed/events"}
    bucket = {"OnFailure": {"Destination": "arn:aws:s3:::failed"}}
    streams = [
        {
            "FunctionName": name,
            "EventSourceArn": STREAM,
            "StartingPosition": "LATEST",
            "DestinationConfig": failure,
            **(carried if name == "open" else {}),
        }
        for name in INVOKERS
    ]
    streams.append(
        {**streams[0], "EventSourceArn": OTHER, "DestinationConfig": bucket, "include_payload": True}
    )
    return {
        "store": "memory://",
        "functions": {name: {"invoker": name, "max_concurrency": 3, **own} for name in INVOKERS},
        "mappings": [*streams, {"FunctionName": "plain", "EventSourceArn": QUEUE}],
    }


def checked(given: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What each plug-in's settings are when they are checked."""
    record = Record()
    for part in plugins_in(given):
        plugin_errors(part, record.registry)
    return record.seen


def opened(plan: DaemonPlan) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What each plug-in's settings are when a daemon opens it."""
    record = Record()
    parts: list[PluginSpec] = [store_of(plan), *(function_of(each) for each in plan.functions.values())]
    for mapping in plan.mappings:
        parts += [source_of(mapping)]
        destination = destination_of(mapping)
        parts += [destination] if destination is not None else []

    async def run() -> None:
        for part in parts:
            with suppress(InvalidConfiguration):
                async with part.opened(record.registry, Environment(LoopClock())):
                    pass

    asyncio.run(run())
    return record.seen


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"url": "http://host/"},
        {"function": "another"},
        {"url": "http://host/", "function": "another"},
    ],
)
def test_what_is_checked_is_what_is_opened(own: dict[str, Any]) -> None:
    given = document(own)
    found, wanted = checked(given), opened(daemon_plan(Settings(**given)))
    for key in MODELS.keys() - {("control", "http"), ("stores", "memory")}:
        if key == ("invokers", "plain") and "function" in own:
            # It does not know the name: this is told, and it cannot be opened.
            assert not wanted[key]
            continue
        assert found[key], key
        assert found[key] == wanted[key], key


def test_no_entry_calls_itself_by_another_name_and_no_source_names_another_stream() -> None:
    plan = daemon_plan(Settings(**document({"function": "another"})))
    for name in ("named", "limited", "open"):
        assert function_of(plan.functions[name]).settings(MODELS["invokers", name])["function"] == name
    mapping = replace(plan.mappings[0], source_settings={"arn": OTHER, "url": "x"})
    assert source_of(mapping).settings(Located) == {"arn": STREAM, "url": "x"}


def test_a_destination_is_told_about_events_if_it_asks() -> None:
    plan = daemon_plan(Settings(**document({})))
    found = [destination_of(mapping) for mapping in plan.mappings]
    told = [each.settings(MODELS["destinations", each.name]) for each in found if each is not None]
    assert told == [
        {"arn": QUEUE},
        {"arn": QUEUE},
        {"arn": QUEUE},
        {"arn": QUEUE, "include_payload": True, "payload_prefix": "s3://failed/events"},
        {"arn": "arn:aws:s3:::failed"},
    ]


def test_an_invoker_gets_of_the_daemons_settings_those_that_it_knows() -> None:
    plan = daemon_plan(Settings(**document({})))
    known = {name: function_of(plan.functions[name]).settings(MODELS["invokers", name]) for name in INVOKERS}
    assert known == {
        "plain": {},
        "named": {"function": "named"},
        "limited": {"function": "limited", "max_concurrency": 3},
        "open": {"function": "open", "max_concurrency": 3, "function_version": "$LATEST"},
    }


def test_mappings_that_read_the_same_records_are_known_by_the_text_of_their_source() -> None:
    plan = daemon_plan(Settings(**document({})))
    texts = {each.source_arn: set[str]() for each in plan.mappings}
    for each in plan.mappings:
        texts[each.source_arn].add(shared_source_text(each))
    assert all(len(found) == 1 for found in texts.values()), "ids and functions make no difference"
    assert len({shared_source_text(each) for each in plan.mappings}) == len(texts)
    first = plan.mappings[0]
    other = replace(first, source_settings={"deaggregate": True})
    assert shared_source_text(other) != shared_source_text(first)
