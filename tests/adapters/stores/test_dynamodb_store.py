"""Owns the store suite on DynamoDB's emulators, and what only a network can do: lost answers, late writes, throttling."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from adapters.aws import clients
from adapters.stores.dynamodb.calls import CALLS_MAX
from adapters.stores.dynamodb.store import DynamoSettings, DynamoStore, plugin
from adapters.stores.dynamodb.table import ROOM_BYTES, ready
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    RowChanged,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import SHARD_END, Epoch, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.ports import Store
from poller.testing.store import DIGEST_SCENARIOS, SCENARIOS
from poller.testing.stores.store_history import StoreMachine
from poller.testing.stores.store_steps import (
    ANN,
    LADDER,
    MEMO,
    ONE,
    ORDERS,
    Opening,
    Scenario,
    lease,
    noise,
    only,
    seeded,
    taken,
)
from tests import emulators
from tests.adapters.stores.dynamo import TABLES, environment, lost_answer, meddled, refusal
from tests.conftest import REGION
from tests.emulators import Emulator


@pytest.fixture(scope="session")
def dynalite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One dynalite for this process of the test run."""
    with emulators.dynalite(tmp_path_factory.mktemp("dynalite")) as emulator:
        yield emulator


@pytest.fixture(params=["ministack", "dynalite"])
def endpoint(request: pytest.FixtureRequest, account: str) -> str:
    """The URL of each emulator in turn."""
    emulator: Emulator = request.getfixturevalue(request.param)
    return emulator.url


@asynccontextmanager
async def table_at(url: str, **options: Any) -> AsyncGenerator[Opening]:
    """An opening of a table of its own; all doors share one client as in one daemon."""
    env, name = environment(url), f"poller-{next(TABLES)}"

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Store]:
        async with plugin.open(
            DynamoSettings(url=f"dynamodb://{name}", create=True, **options), env
        ) as store:
            yield store

    try:
        yield open_one
    finally:
        await env.shared.close()


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_a_table(scenario: Scenario, endpoint: str) -> None:
    async def whole() -> None:
        async with table_at(endpoint) as opening:
            await scenario(opening)

    asyncio.run(whole())


@pytest.mark.parametrize("room", [ROOM_BYTES, 2], ids=["memos in rows", "memos in parts"])
def test_random_histories_in_a_table_follow_the_model(room: int, ministack: Emulator, account: str) -> None:
    class Machine(StoreMachine):
        def fresh(self) -> Opening:
            table = f"history-{next(TABLES)}"

            @asynccontextmanager
            async def open_one() -> AsyncGenerator[Store]:
                env = environment(ministack.url)
                client = await clients.client(env, "dynamodb", REGION)
                await ready(client, table, create=True)
                yield DynamoStore(client, table, call_timeout_s=5, room=room)
                await env.shared.close()

            return open_one

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=5, stateful_step_count=20, deadline=None)
    )


def test_writes_whose_answers_were_lost_may_be_sent_again(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):

            async def twice(call: Callable[[], Coroutine[Any, Any, Any]], operation: str) -> Any:
                meddler.after[operation] = [lost_answer()]
                with pytest.raises(ServiceUnavailable):
                    await call()
                return await call()

            row = MappingRow(ORDERS, Epoch(1), seeded=True)
            assert await twice(lambda: store.create(row), "update_item") == row
            await twice(lambda: store.update(row), "put_item")
            await twice(lambda: store.seed(ORDERS, [lease()]), "put_item")
            mine = await twice(lambda: store.take(ORDERS, lease(), owner=ANN), "update_item")
            assert mine == Lease(ONE, (), lease().checkpoint, ANN, 1)
            await twice(lambda: store.save(ORDERS, mine, Checkpoint(LADDER[4], MEMO)), "update_item")
            await twice(lambda: store.release(ORDERS, mine), "update_item")
            assert await only(store) == Lease(ONE, (), Checkpoint(LADDER[4], MEMO), None, 1)
            await twice(lambda: store.beat(ANN, 1, facts={}), "put_item")
            await twice(lambda: store.retire(ANN), "delete_item")
            await twice(lambda: store.forget(ORDERS), "delete_item")
            assert [await store.mappings(), await store.leases(ORDERS), await store.workers()] == [[], [], []]

    asyncio.run(scenario())


def test_an_item_of_before_there_were_revisions_is_read_and_updated_at_revision_0(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            item = {
                "pk": {"S": "mappings"},
                "sk": {"S": ORDERS},
                "fixed": {"N": "1.5"},
                "seeded": {"BOOL": True},
                "document": {"S": '{"old": 1}'},
            }
            await meddler.client.put_item(TableName=store.table, Item=item)
            row = MappingRow(ORDERS, Epoch(1.5), seeded=True, document={"old": 1})
            assert await store.mappings() == [row]
            with pytest.raises(RowChanged):
                await store.update(replace(row, document={"late": 1}, revision=1))
            await store.update(replace(row, document={"new": 2}))
            assert await store.mappings() == [replace(row, document={"new": 2}, revision=1)]

    asyncio.run(scenario())


def test_a_save_that_comes_late_does_not_replace_a_later_memo(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (_, meddler):
            turns = iter([5, 9, 7, 8])
            store = DynamoStore(meddler, f"late-{next(TABLES)}", call_timeout_s=5, turn=lambda: next(turns))
            await ready(meddler, store.table, create=True)
            mine = await taken(store)
            for memo in (b"first", b"newest", b"late"):
                await store.save(ORDERS, mine, Checkpoint(LADDER[4], memo))
            assert (await only(store)).checkpoint.memo == b"newest"
            again = await store.take(ORDERS, mine, owner=ANN)
            await store.save(ORDERS, again, Checkpoint(LADDER[4], b"of a new epoch"))
            assert (await only(store)).checkpoint.memo == b"of a new epoch"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ProvisionedThroughputExceededException", ServiceThrottled),
        ("ThrottlingException", ServiceThrottled),
        ("RequestLimitExceeded", ServiceThrottled),
        ("TransactionConflictException", ServiceThrottled),
        ("AccessDeniedException", AccessDenied),
        ("ResourceNotFoundException", ResourceMissing),
        ("InternalServerError", ServiceUnavailable),
        ("ItemCollectionSizeLimitExceededException", ServiceUnavailable),
    ],
)
def test_what_the_service_says_is_what_the_caller_does_next(
    code: str, meaning: type[PortError], ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            mine = await taken(store)
            meddler.before = {"update_item": [refusal(code)], "query": [refusal(code)]}
            with pytest.raises(meaning, match=code):
                await store.save(ORDERS, mine, Checkpoint(SHARD_END))
            with pytest.raises(meaning, match=code):
                await store.leases(ORDERS)
            assert await only(store) == mine

    asyncio.run(scenario())


def test_a_call_without_an_answer_ends_at_its_time_limit() -> None:
    class Silent:
        async def query(self, **arguments: Any) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        store = DynamoStore(Silent(), "orders", call_timeout_s=0.01)
        with pytest.raises(ServiceUnavailable, match="TimeoutError"):
            await store.mappings()

    asyncio.run(scenario())


def test_what_no_item_has_room_for_is_not_sent(ministack: Emulator, account: str) -> None:
    large = bytes(400 * 1024).decode()

    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            for call in (
                store.create(MappingRow(ORDERS, Epoch(1), document={"a": large})),
                store.beat(ANN, 1, facts={"a": large}),
            ):
                with pytest.raises(ServiceUnavailable, match="a DynamoDB item has room for"):
                    await call
            assert meddler.calls == []

    asyncio.run(scenario())


def test_a_listing_of_several_pages_is_whole(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            large = [
                Lease(ShardId(f"s{number}"), (), Checkpoint(LADDER[3], noise(300_000))) for number in range(8)
            ]
            await store.seed(ORDERS, large)
            assert await store.leases(ORDERS) == large
            assert meddler.calls.count("query") > 2

    asyncio.run(scenario())


def test_a_mapping_that_was_half_forgotten_is_listed_and_can_be_forgotten_again(
    ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            await store.create(MappingRow(ORDERS, Epoch(1)))
            await seeded(store, *(ShardId(f"s{number:03}") for number in range(3 * CALLS_MAX)))
            meddler.before["delete_item"] = [*[None] * CALLS_MAX, refusal("ThrottlingException")]
            with pytest.raises(ServiceThrottled):
                await store.forget(ORDERS)
            assert len(await store.mappings()) == 1
            assert len(await store.leases(ORDERS)) == CALLS_MAX + 1
            await store.forget(ORDERS)
            assert [await store.mappings(), await store.leases(ORDERS)] == [[], []]

    asyncio.run(scenario())


def test_many_workers_may_make_the_table_at_once(endpoint: str) -> None:
    async def one(opening: Opening, number: int) -> None:
        async with opening() as store:
            await store.seed(ORDERS, [lease(ShardId(f"s{number}"))])

    async def scenario() -> None:
        async with table_at(endpoint) as opening:
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(one(opening, number))
            async with opening() as store:
                assert len(await store.leases(ORDERS)) == 6

    asyncio.run(scenario())


def test_a_missing_table_is_named_unless_it_may_be_made(endpoint: str) -> None:
    async def scenario() -> None:
        env = environment(endpoint)
        with pytest.raises(InvalidConfiguration, match=r"no DynamoDB table nowhere.*create=true"):
            async with plugin.open(DynamoSettings(url="dynamodb://nowhere"), env):
                pass
        await env.shared.close()

    asyncio.run(scenario())


def test_a_table_with_other_keys_is_refused(endpoint: str) -> None:
    async def scenario() -> None:
        env, name = environment(endpoint), f"other-{next(TABLES)}"
        client = await clients.client(env, "dynamodb", REGION)
        await client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with pytest.raises(InvalidConfiguration, match=r"leaseKey.*it needs pk"):
            async with plugin.open(DynamoSettings(url=f"dynamodb://{name}", create=True), env):
                pass
        await env.shared.close()

    asyncio.run(scenario())


def test_a_table_is_billed_on_demand(ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            found = await meddler.describe_table(TableName=store.table)
            assert found["Table"]["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url", ["dynamodb://", "dynamodb://ab", "dynamodb://a/b/c", "dynamodb:orders", "dynamodb://größe"]
)
def test_a_url_without_a_tables_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write dynamodb://TABLE"):
        DynamoSettings(url=url)


def test_options_in_the_url_are_settings() -> None:
    url = "dynamodb://Orders_1?create=true&region=eu-central-1&call_timeout_s=2"
    read = DynamoSettings.model_validate({"url": url})
    assert (read.table, read.create, read.region, read.call_timeout_s) == (
        "Orders_1",
        True,
        "eu-central-1",
        2,
    )
