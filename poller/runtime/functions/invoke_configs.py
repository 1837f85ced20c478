"""Owns how asynchronous calls are tried, as it was set through Lambda's API: in the store, and this worker's copy.

Each function has one row in the store, under `function:NAME`. What the configuration file says of a qualifier cannot be changed
through the API.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from poller.domain.errors import PortError, RowChanged
from poller.domain.functions.invoke_configs import InvokeConfigView, parameters_of, policy_of
from poller.domain.functions.queued_calls import AsyncPolicy
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import LATEST, FunctionPlan
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.domain.untrusted.numbers import moment
from poller.domain.untrusted.texts import line_of
from poller.ports import Clock, MappingStore
from poller.rules.functions.invoke_configs import checked, merged, shown
from poller.rules.functions.naming import NamedFunction, qualifier_of

TRIES_MAX = 10
STORE_S_MAX = 10.0
NAME_CHARS_MAX = 300
FROM_FILE = (
    "How asynchronous calls of this function are tried comes from the configuration file and cannot be changed through the API. "
    "Change it there, or remove it there."
)


class _Config(msgspec.Struct, frozen=True):
    parameters: dict[str, Any]
    modified: float


class _Document(msgspec.Struct, frozen=True):
    event_invoke_configs: dict[str, _Config] = {}


@dataclass(frozen=True, slots=True)
class _Known:
    """The row of one function."""

    configs: Mapping[str, _Config]
    revision: int


class InvokeConfigs:
    """The configurations in the store, as this worker last read or wrote them. `named` finds a function; it raises ApiError."""

    def __init__(self, store: MappingStore, clock: Clock, named: Callable[[str, str], NamedFunction]) -> None:
        self.unread: tuple[str, ...] = ()
        """The problems of rows that could not be read, one line each."""
        self._store = store
        self._clock = clock
        self._named = named
        self._known: dict[str, _Known] = {}
        self._listed = False
        self._damaged: frozenset[str] = frozenset()
        """Functions whose rows cannot be read, and were not read before."""
        self._began = clock.now()
        self._turn = asyncio.Lock()

    def take(self, rows: Iterable[MappingRow]) -> None:
        """Takes over what a listing of the store found. A row that cannot be read leaves its function as it was."""
        known: dict[str, _Known] = {}
        unread: list[str] = []
        damaged: set[str] = set()
        for row in rows:
            if not row.mapping.startswith(FUNCTION_PREFIX):
                continue
            name = row.mapping.removeprefix(FUNCTION_PREFIX)
            found = None if row.damage else _read(row)
            if found is None:
                unread.append(_unread(name))
                found = self._known.get(name)
            if found is None:
                damaged.add(name)
            else:
                known[name] = found
        self._known, self.unread = known, tuple(unread)
        self._listed, self._damaged = True, frozenset(damaged)

    def ready(self, function: str) -> bool:
        """Whether it is known how calls of a function are tried. Until then none may be: it could end without its destination."""
        return self._listed and function not in self._damaged

    def policy(self, plan: FunctionPlan | None, arn: str) -> AsyncPolicy:
        """How asynchronous calls of an ARN are tried: as the file says, else as the API has set it, else as on Lambda."""
        if plan is None:
            return AsyncPolicy()
        qualifier = _plain(qualifier_of(arn))
        known = self._known.get(plan.name)
        if qualifier in plan.async_policies or known is None or qualifier not in known.configs:
            return plan.async_policy(qualifier)
        parameters = known.configs[qualifier].parameters
        return policy_of(parameters, dead_letter=plan.dead_letter, identity=plan.identity)

    async def put(
        self, function: str, qualifier: str, parameters: Mapping[str, Any], *, merge: bool
    ) -> InvokeConfigView:
        """Stores the parameters, in place of those before, or with `merge` over them. Raises ApiError."""
        named = self._named(function, qualifier)
        wanted, plain = checked(parameters), _plain(qualifier_of(named.arn))

        def change(configs: dict[str, _Config]) -> None:
            before = configs[plain].parameters if merge and plain in configs else {}
            configs[plain] = _Config(merged(before, wanted), self._clock.now())

        await self._change(named, plain, change)
        return self.get(function, qualifier)

    def get(self, function: str, qualifier: str) -> InvokeConfigView:
        """The configuration of a function's qualifier. Raises ApiError."""
        named = self._named(function, qualifier)
        plain = _plain(qualifier_of(named.arn))
        found = self._views(named).get(plain)
        if found is None:
            raise _none(named, plain)
        return found

    def list(self, function: str) -> Sequence[InvokeConfigView]:
        """All configurations of a function, by qualifier. Raises ApiError."""
        views = self._views(self._named(function, ""))
        return [views[qualifier] for qualifier in sorted(views)]

    async def delete(self, function: str, qualifier: str) -> None:
        """Removes the configuration of a function's qualifier. Raises ApiError."""
        named = self._named(function, qualifier)
        plain = _plain(qualifier_of(named.arn))

        def change(configs: dict[str, _Config]) -> None:
            if configs.pop(plain, None) is None:
                raise _none(named, plain)

        await self._change(named, plain, change)

    async def _change(
        self, named: NamedFunction, qualifier: str, change: Callable[[dict[str, _Config]], None]
    ) -> None:
        """Decides and stores a change of what the store has now. Repeats this if another worker was faster."""
        if qualifier in named.plan.async_policies:
            raise ApiError(ApiErrorType.CONFLICT, FROM_FILE)
        key = MappingId(FUNCTION_PREFIX + named.plan.name)
        try:
            async with self._turn, asyncio.timeout(STORE_S_MAX):
                for _ in range(TRIES_MAX):
                    row = await self._store.create(MappingRow(key, fixed=self._clock.now()))
                    found = _read(row)
                    if found is None:
                        raise ApiError(ApiErrorType.SERVICE, f"The row {key} in the store cannot be read")
                    configs = dict(found.configs)
                    change(configs)
                    document = {**row.document, **_document(configs)}
                    with suppress(RowChanged):
                        await self._store.update(
                            MappingRow(key, row.fixed, document=document, revision=row.revision)
                        )
                        self._known[named.plan.name] = _Known(configs, row.revision + 1)
                        return
            raise ApiError(ApiErrorType.THROTTLED, "Rate exceeded")
        except TimeoutError:
            raise ApiError(ApiErrorType.SERVICE, "The store does not answer; try again later.") from None
        except PortError as error:
            raise ApiError(ApiErrorType.SERVICE, f"The store is in trouble: {error.reason}") from error

    def _views(self, named: NamedFunction) -> dict[str, InvokeConfigView]:
        bare = named.arn.removesuffix(f":{qualifier_of(named.arn)}")
        known = self._known.get(named.plan.name)
        found = {
            qualifier: self._view(bare, qualifier, config.parameters, Epoch(config.modified))
            for qualifier, config in (known.configs if known is not None else {}).items()
        }
        found |= {
            qualifier: self._view(bare, qualifier, parameters_of(policy), self._began)
            for qualifier, policy in named.plan.async_policies.items()
        }
        return found

    @staticmethod
    def _view(bare: str, qualifier: str, parameters: Mapping[str, Any], modified: Epoch) -> InvokeConfigView:
        return InvokeConfigView(
            arn=f"{bare}:{qualifier or LATEST}", parameters=shown(parameters), modified=modified
        )


def _plain(qualifier: str) -> str:
    """The qualifier as a key: the latest version has none."""
    return "" if qualifier == LATEST else qualifier


def _unread(name: str) -> str:
    shown = line_of(name, chars_max=NAME_CHARS_MAX)
    return (
        f"store: how asynchronous calls of function {shown} are tried cannot be read from the row {FUNCTION_PREFIX}{shown}; "
        "a worker that has not read it before makes no calls of it: put the configuration anew by a version that can read the row, or remove the row"
    )


def _read(row: MappingRow) -> _Known | None:
    """The row; None if it is damaged. People edit rows by hand, and later versions write what this one does not know."""
    try:
        found = msgspec.convert(dict(row.document), _Document).event_invoke_configs
        return _Known({name: _checked(config) for name, config in found.items()}, row.revision)
    except (msgspec.ValidationError, ApiError):
        return None


def _checked(config: _Config) -> _Config:
    """The configuration within the bounds that a request has; raises ApiError otherwise."""
    if moment(config.modified, default=None) is None:
        raise ApiError(ApiErrorType.PARAMETER, "no moment")
    return _Config(checked(config.parameters), config.modified)


def _document(configs: Mapping[str, _Config]) -> dict[str, Any]:
    plain = {
        qualifier: {"parameters": config.parameters, "modified": config.modified}
        for qualifier, config in configs.items()
    }
    return {"event_invoke_configs": plain}


def _none(named: NamedFunction, qualifier: str) -> ApiError:
    bare = named.arn.removesuffix(f":{qualifier_of(named.arn)}")
    text = f"The function {bare}:{qualifier or LATEST} doesn't have an EventInvokeConfig"
    return ApiError(ApiErrorType.MISSING, text)
