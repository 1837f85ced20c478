"""Aliases on /v1: who may look, shift and roll back, what is answered, what a wrong body is told, and what the audit says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.control.aliases.shift_requests import (
    NO_STRATEGY,
    NOT_AN_OBJECT,
    REASON_CHARS_MAX,
    TOO_MANY_VALUES,
    TWO_STRATEGIES,
    VALUES_MAX,
    rollback_reason,
    shift_request,
)
from poller.domain.access import Role
from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.shifts import ShiftState, ShiftStrategy
from poller.domain.mapping_api import ApiError
from poller.domain.telemetry.labels import ApiOperation
from tests.adapters.control.aliases.test_alias_api import versioned
from tests.adapters.control.invoke.callers import ARN, CallerModel
from tests.adapters.control.invoke.test_invoke_api import setting
from tests.adapters.control.serving import Running, serving, validate
from tests.adapters.control.test_access import Keys
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_roles import ROLES, TOKENS, bearer, files

__all__ = ["files"]
ALL = "/v1/aliases"
ALIASES = "/v1/functions/orders/aliases"
LIVE = f"{ALIASES}/live"
SHIFTS = f"{LIVE}/shifts"
ROLLBACK = f"{LIVE}/rollback"
CANARY = {"to": "2", "strategy": "Canary10Percent5Minutes"}
CARER = bearer("carer")


async def ready(run: Running, caller: CallerModel) -> Running:
    await caller.aliases.create("orders", "live", AliasChange(version="1"))
    return run


def test_aliases_are_shown_by_function_and_each_alone(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> None:
        await ready(run, caller)
        _, page, _ = await run.get(ALL, headers=bearer("looker"))
        status, found, _ = await run.get(ALIASES, headers=bearer("looker"))
        assert status == 200
        validate(page, "AliasPage")
        validate(found, "FunctionAliases")
        assert [each["function"] for each in page["functions"]] == ["orders", "zebra"]
        assert page["functions"][0] == found
        assert [each["number"] for each in found["versions"]] == ["$LATEST", "1", "2", "3"]
        status, one, _ = await run.get(LIVE, headers=bearer("looker"))
        validate(one, "AliasView")
        assert [one] == found["aliases"]
        assert (one["function"], one["name"], one["version"], one["weights"]) == ("orders", "live", "1", {})
        assert (one["shift"], one["from_file"], one["calls"]) == (None, False, {})

    serving(use, setting(files, caller))


def test_functions_without_versions_and_aliases_are_not_listed(files: Keys) -> None:
    found = serving(lambda run: run.get(ALL, headers=bearer("looker")), setting(files, CallerModel()))
    assert found[:2] == (200, {"functions": []})


@pytest.mark.parametrize("name", TOKENS)
def test_an_operator_shifts_and_rolls_back_and_a_viewer_does_not(files: Keys, name: str) -> None:
    caller = versioned()

    async def use(run: Running) -> None:
        await ready(run, caller)
        body = {**CANARY, "failure_rate": 0.05, "reason": "release 2", "id": "mine"}
        status, shifted, _ = await run.ask("POST", SHIFTS, headers=bearer(name), json=body)
        if not ROLES[name].includes(Role.OPERATE):
            assert status == 403
            assert (await run.ask("POST", ROLLBACK, headers=bearer(name)))[0] == 403
            return
        assert status == 202
        validate(shifted, "AliasView")
        assert (shifted["version"], shifted["weights"]) == ("1", {"2": 0.1})
        shift = shifted["shift"]
        assert (shift["shift"], shift["by"], shift["reason"]) == ("mine", name, "release 2")
        assert (shift["state"], shift["failure_rate"]) == ("shifting", 0.05)
        again = await run.ask("POST", SHIFTS, headers=bearer(name), json=body)
        assert again[:2] == (202, shifted)
        status, back, _ = await run.ask("POST", ROLLBACK, headers=bearer(name), json={"reason": "errors"})
        assert status == 200
        validate(back, "AliasView")
        assert (back["version"], back["weights"]) == ("1", {})
        assert (back["shift"]["state"], back["shift"]["ended_because"]) == (
            ShiftState.ROLLED_BACK,
            f"by {name}: errors",
        )

    serving(use, setting(files, caller))
    assert len(caller.alias_model.asked) == (1 if ROLES[name].includes(Role.OPERATE) else 0)


def test_own_numbers_and_hooks_come_to_the_daemon(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> int:
        await ready(run, caller)
        body = {
            "to": "2",
            "percent": 20,
            "interval_s": 30,
            "linear": True,
            "before": "check",
            "after": f"{ARN}:1",
        }
        return (await run.ask("POST", SHIFTS, headers=CARER, json=body))[0]

    assert serving(use, setting(files, caller)) == 202
    (asked,) = caller.alias_model.asked
    strategy = asked.strategy
    assert (strategy.percent, strategy.interval_s, strategy.linear) == (20.0, 30.0, True)
    assert asked == ShiftRequest(to="2", strategy=strategy, before="check", after=f"{ARN}:1", by="carer")


WRONG = [
    (b"", NOT_AN_OBJECT),
    (b"[]", NOT_AN_OBJECT),
    (b"{", NOT_AN_OBJECT),
    (b'{"a": [%b]}' % (b"0," * VALUES_MAX + b"0"), TOO_MANY_VALUES),
    (b'{"strategy": "AllAtOnce"}', "to: is missing; write the version"),
    (b'{"to": null, "strategy": "AllAtOnce"}', "to: is missing"),
    (b'{"to": 2, "strategy": "AllAtOnce"}', "to: write a text of 1 to 64 characters"),
    (b'{"to": "2"}', NO_STRATEGY),
    (b'{"to": "2", "percent": 10}', "interval_s: is missing; write the seconds after which the rest follows"),
    (
        b'{"to": "2", "interval_s": 10}',
        "percent: is missing; write the share of the calls that moves at once",
    ),
    (b'{"to": "2", "percent": 0.01, "interval_s": 1}', "percent: write 0.1 or more percent, at most 100"),
    (b'{"to": "2", "strategy": "Quick"}', "strategy: "),
    (b'{"to": "2", "strategy": "AllAtOnce", "percent": 10}', TWO_STRATEGIES),
    (b'{"to": "2", "percent": true, "interval_s": 1}', "percent: write a number from 0 to 100"),
    (b'{"to": "2", "percent": 101, "interval_s": 1}', "percent: write a number from 0 to 100"),
    (b'{"to": "2", "percent": 10, "interval_s": "1"}', "interval_s: write a number from 0 to"),
    (b'{"to": "2", "percent": 1, "interval_s": 172801}', "interval_s: write a number from 0 to 172800"),
    (b'{"to": "2", "percent": 1, "interval_s": 172800, "linear": true}', "percent: "),
    (b'{"to": "2", "percent": 10, "interval_s": 1, "linear": 1}', "linear: write true or false"),
    (b'{"to": "2", "strategy": "AllAtOnce", "failure_rate": 5}', "failure_rate: write a number from 0 to 1"),
    (b'{"to": "2", "strategy": "AllAtOnce", "before": "a b"}', "before: is no name of a function"),
    (b'{"to": "2", "strategy": "AllAtOnce", "after": ""}', "after: write a text of 1 to"),
    (b'{"to": "2", "strategy": "AllAtOnce", "id": "a b"}', "id: write ASCII characters without blanks"),
    (b'{"to": "2", "to": "3", "strategy": "AllAtOnce"}', "to: is there twice; write it once"),
    (
        b'{"to": "2", "strategy": "AllAtOnce", "now": true}',
        "now: is not known here; the members are to, strategy",
    ),
    (
        b'{"to": "2", "strategy": "AllAtOnce", "reason": "%b"}' % (b"x" * (REASON_CHARS_MAX + 1)),
        "reason: write a text of at most 200 characters",
    ),
]


def test_a_wrong_body_is_told_which_member_and_what_to_write(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> list[tuple[int, Any]]:
        await ready(run, caller)
        headers = {**CARER, "Content-Type": "application/json"}
        return [(await run.ask("POST", SHIFTS, headers=headers, data=body))[:2] for body, _ in WRONG]

    found = serving(use, setting(files, caller))
    for (status, answer), (body, said) in zip(found, WRONG, strict=True):
        validate(answer, "Error")
        assert (status, answer["message"].startswith(said)) == (400, True), (body, answer)
    assert caller.alias_model.asked == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"why": "x"}', b'{"reason": 5}'])
def test_a_rollback_takes_a_reason_and_nothing_else(body: bytes) -> None:
    assert (rollback_reason(b""), rollback_reason(b"{}"), rollback_reason(b'{"reason": "x"}')) == (
        "",
        "",
        "x",
    )
    with pytest.raises(
        ApiError, match=r"JSON object|why: is not known here; the members are reason|reason: write"
    ):
        rollback_reason(body)


def test_what_cannot_be_done_now_is_a_conflict_and_unknown_names_are_not_found(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> list[tuple[int, str]]:
        await ready(run, caller)
        asked: list[tuple[str, Any]] = [
            (ROLLBACK, None),
            (SHIFTS.replace("live", "beta"), CANARY),
            (SHIFTS.replace("orders", "nothing"), CANARY),
            (SHIFTS, CANARY | {"to": "9"}),
            (SHIFTS, CANARY),
            (SHIFTS, CANARY),
        ]
        found = [await run.ask("POST", path, headers=CARER, json=body) for path, body in asked]
        found += [
            await run.get(path, headers=CARER) for path in (f"{ALIASES}/beta", ALIASES.replace("orders", "x"))
        ]
        return [(status, answer.get("message", "")) for status, answer, _ in found]

    found = serving(use, setting(files, caller))
    assert [status for status, _ in found] == [409, 404, 404, 404, 202, 409, 404, 404]
    assert found[0][1] == f"No shift of {ARN}:live runs; shift it to the old version"
    assert found[5][1] == f"A shift of {ARN}:live runs; roll it back first"


def test_only_json_shifts_and_no_form_rolls_back(files: Keys) -> None:
    caller = versioned()

    async def use(run: Running) -> list[int]:
        await ready(run, caller)
        form = {"Content-Type": "application/x-www-form-urlencoded", **CARER}
        plain = {"Content-Type": "text/plain", **CARER}
        asked = [(SHIFTS, form), (SHIFTS, plain), (ROLLBACK, form), (ROLLBACK, plain)]
        data = json.dumps(CANARY).encode()
        return [(await run.ask("POST", path, headers=headers, data=data))[0] for path, headers in asked]

    assert serving(use, setting(files, caller)) == [415, 415, 415, 415]
    assert caller.alias_model.asked == []


def test_without_a_caller_nothing_is_served(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        found = [await run.get(path, headers=CARER) for path in (ALL, ALIASES, LIVE)]
        found += [await run.ask("POST", path, headers=CARER, json=CANARY) for path in (SHIFTS, ROLLBACK)]
        return [status for status, *_ in found]

    assert serving(use, setting(files, None)) == [501] * 5


def test_the_audit_says_what_was_shifted_and_by_whom(files: Keys) -> None:
    caller, told = versioned(), Told()

    async def use(run: Running) -> None:
        await ready(run, caller)
        await run.ask("POST", SHIFTS, headers=CARER, json=CANARY)
        await run.ask("POST", ROLLBACK, headers=CARER)
        await run.ask("POST", ROLLBACK, headers=CARER)
        await run.ask("POST", SHIFTS, headers=bearer("looker"), json=CANARY)

    serving(use, setting(files, caller, told))
    place = "functions.orders.aliases.live"
    assert [
        (each.operation, each.who, each.changes, each.refused.partition(":")[0]) for each in told.changes
    ] == [
        (
            ApiOperation.SHIFT,
            "carer",
            (f"{place}: shift shift-1 from 1 to 2, Canary10Percent5Minutes",),
            "",
        ),
        (ApiOperation.ROLL_BACK, "carer", (f"{place}: rolled back to 1",), ""),
        (ApiOperation.ROLL_BACK, "carer", (place,), "ResourceConflictException"),
        (ApiOperation.SHIFT, "looker", (), "Forbidden"),
    ]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = (
    "to",
    "strategy",
    "percent",
    "interval_s",
    "linear",
    "before",
    "after",
    "failure_rate",
    "reason",
    "id",
)


@given(st.dictionaries(st.sampled_from(MEMBERS), ANYTHING) | ANYTHING)
def test_a_body_of_any_form_is_read_or_refused_with_a_text(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        found = shift_request(body, by="carer")
    except ApiError as error:
        text = error.text
    else:
        assert isinstance(found.strategy, ShiftStrategy)
        assert 0 < found.strategy.percent <= 100
        return
    assert ": " in text or text in {NOT_AN_OBJECT, TOO_MANY_VALUES}
