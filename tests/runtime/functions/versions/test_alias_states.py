"""What a worker knows of aliases while its writes fail."""

from dataclasses import replace

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.rows import MappingRow
from poller.runtime.functions.versions.alias_states import AliasStates
from tests.runtime.fakes import Seen
from tests.runtime.functions.versions.test_versions import function
from tests.virtual import run_virtual, virtual_clock


class ReadOnly(MemoryStore):
    """A store that refuses writes from some time on."""

    refuses = False

    async def update(self, row: MappingRow) -> None:
        if self.refuses:
            raise ServiceUnavailable("read-only")
        await super().update(row)


def test_what_was_read_to_change_an_alias_counts_although_the_write_fails() -> None:
    async def scenario() -> None:
        store, plan = ReadOnly(), function("1", "2")
        mine, other = (AliasStates(store, virtual_clock(), Seen()) for _ in range(2))
        await mine.adopt(plan)
        await other.adopt(plan)
        await other.change(
            plan.name, lambda state: state.with_alias("live", replace(state.aliases["live"], version="2"))
        )
        store.refuses = True
        with pytest.raises(ServiceUnavailable):
            await mine.marked(plan, "1")
        found = mine.alias(plan, "live")
        assert found is not None
        assert found.version == "2"

    run_virtual(scenario())
