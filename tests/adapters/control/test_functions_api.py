"""Closing a function's breaker through the API: who may, what is answered, and what the audit says."""

from pathlib import Path
from typing import Any

import pytest

from adapters.control.functions_api import REASON_CHARS_MAX
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.records import Epoch
from poller.domain.status import BreakerStatus, DaemonStatus, FunctionStatus, RateStatus
from poller.domain.telemetry.labels import ApiOperation, BreakerState
from tests.adapters.control.serving import Running, Setting, View, serving, validate
from tests.adapters.control.test_access import Keys
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_roles import ROLES, TOKENS, bearer, closed, files

__all__ = ["files"]
PATH = "/v1/functions/orders/breaker/close"
STATE = FunctionStatus(
    function="orders",
    rate=RateStatus(invocations_per_s=5.0, records_per_s=None, share=0.5, waiting=2),
    breaker=BreakerStatus(
        state=BreakerState.CLOSED, since=Epoch(1_767_225_600.0), reason="closed by hand by carer"
    ),
)


class Functions:
    """A FunctionControl that knows one function."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def close_breaker(self, function: str, *, by: str, reason: str) -> FunctionStatus:
        self.asked.append((function, by, reason))
        if function != "orders":
            raise ApiError(ApiErrorType.MISSING, "functions that have one: orders")
        return STATE


def setting(files: Keys, functions: Functions | None, told: Told | None = None) -> Setting:
    found = closed(files, told)
    found.functions = functions
    return found


@pytest.mark.parametrize("name", TOKENS)
def test_an_operator_closes_a_breaker_and_a_viewer_does_not(files: Keys, name: str) -> None:
    functions = Functions()
    status, body, _ = serving(
        lambda run: run.ask("POST", PATH, headers=bearer(name)), setting(files, functions)
    )
    allowed = ROLES[name].includes(Role.OPERATE)
    assert status == (200 if allowed else 403)
    assert functions.asked == ([("orders", name, "")] if allowed else [])
    if allowed:
        validate(body, "FunctionStatus")
        assert body["breaker"]["state"] == "closed"


def test_the_reason_is_handed_on_and_the_audit_names_the_function(files: Keys) -> None:
    functions, told = Functions(), Told()

    async def use(run: Running) -> None:
        status, _, _ = await run.ask("POST", PATH, headers=bearer("carer"), json={"reason": "repaired"})
        assert status == 200
        status, body, _ = await run.ask("POST", PATH.replace("orders", "raeder"), headers=bearer("carer"))
        assert (status, body["message"]) == (404, "functions that have one: orders")

    serving(use, setting(files, functions, told))
    assert functions.asked == [("orders", "carer", "repaired"), ("raeder", "carer", "")]
    changes = told.changes
    assert [(each.operation, each.who, each.role, each.changes) for each in changes] == [
        (ApiOperation.CLOSE_BREAKER, "carer", Role.OPERATE, ("functions.orders.breaker: closed",)),
        (ApiOperation.CLOSE_BREAKER, "carer", Role.OPERATE, ("functions.raeder.breaker",)),
    ]
    assert [bool(each.refused) for each in changes] == [False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"why": "x"}',
        b'{"reason": 5}',
        b'{"reason": 0}',
        b'{"reason": false}',
        b'{"reason": {}}',
        b'{"reason": "%s"}' % (b"x" * (REASON_CHARS_MAX + 1)),
    ],
)
def test_a_body_of_another_form_is_refused_with_the_form(files: Keys, body: bytes) -> None:
    functions = Functions()
    status, found, _ = serving(
        lambda run: run.ask("POST", PATH, headers=bearer("carer"), data=body), setting(files, functions)
    )
    assert (status, functions.asked) == (400, [])
    assert 'or {"reason": TEXT}' in found["message"]


def test_a_form_of_a_web_page_and_a_server_without_functions_change_nothing(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        form = {"Content-Type": "application/x-www-form-urlencoded", **bearer("carer")}
        return [
            (await run.ask("POST", PATH, headers=form, data=b"a=b"))[0],
            (await run.ask("POST", PATH, headers=bearer("carer")))[0],
            (await run.get(PATH, headers=bearer("carer")))[0],
        ]

    assert serving(use, setting(files, None)) == [415, 501, 405]


def test_the_status_shows_functions_with_their_breakers(tmp_path: Path) -> None:
    view = View(DaemonStatus(worker="w", mappings=(), ready=True, alive=True, functions=(STATE,)))
    found: Any = serving(lambda run: run.get("/v1/mappings"), Setting(view=view))[1]
    validate(found, "DaemonStatus")
    assert found["functions"][0]["breaker"]["state"] == "closed"
    assert found["functions"][0]["rate"]["share"] == 0.5
