"""Records of a shard through the API: who may see payloads, what the audit says of it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from adapters.control.records_api import NO_PEEKING
from adapters.control.settings import ApiSettings
from adapters.observers.log_events import fields_of
from poller.clock import LoopClock
from poller.domain.access import Reads, Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import PeekRequest
from poller.domain.telemetry.daemon_events import PayloadsShown
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.testing.telemetry_events import MAPPING
from tests.adapters.control.peeked import ANSWER, HOSTILE_TEXT, RECORDS, SHARD, PeekModel, payload
from tests.adapters.control.serving import Running, Setting, serving, validate

PATH = f"/v1/mappings/{MAPPING}/records"
TOKENS = {"looker": Role.VIEW, "carer": Role.OPERATE, "boss": Role.ADMIN}


class Told:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[AnyTelemetryEvent] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        self.events.append(event)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text("".join(f"{name}: {{token: {name}-1, role: {role}}}\n" for name, role in TOKENS.items()))
    path.chmod(0o600)
    return path


def setting(
    tokens: Path, model: PeekModel | None = None, *, show: bool = True, reads: Reads = Reads.OPEN
) -> Setting:
    api = ApiSettings(tokens_file=tokens, show_payloads=show, reads=reads)
    return Setting(api=api, peeking=model or PeekModel(), clock=LoopClock(), observer=Told())


def asked(given: Setting, path: str = PATH, token: str = "") -> tuple[int, Any]:
    """The answer to one request."""
    headers = {"Authorization": f"Bearer {token}-1"} if token else {}

    async def use(run: Running) -> tuple[int, Any]:
        status, body, _ = await run.get(path, headers=headers)
        return status, body

    return serving(use, given)


def shown(given: Setting) -> list[PayloadsShown]:
    """The events about payloads."""
    observer = given.observer
    assert isinstance(observer, Told)
    return [event for event in observer.events if isinstance(event, PayloadsShown)]


@pytest.mark.parametrize("token", ["carer", "boss"])
def test_an_operator_sees_payloads_where_the_settings_allow_it(tokens: Path, token: str) -> None:
    given = setting(tokens)
    status, body = asked(given, token=token)
    assert status == 200
    validate(body, "PeekAnswer")
    assert (body["payloads"], body["missing"], body["shard"]) == (True, "", SHARD)
    assert body["records"][0]["payload"]["text"] == '{"state": "paid"}'
    assert body["records"][2]["user_records"][0]["payload"]["text"] == "one"
    assert body["fault"]["first"] == "4959033827149"
    assert body["next"] == ANSWER.next


def test_each_answer_with_payloads_is_told_to_the_audit(tokens: Path) -> None:
    given = setting(tokens)
    asked(given, token="carer")
    (event,) = shown(given)
    fields = fields_of(event)
    assert fields.pop("address") in {"127.0.0.1", "::1"}
    assert fields == {
        "who": "carer",
        "role": "operate",
        "mapping": MAPPING,
        "shard": SHARD,
        "records": 4,
        "first": RECORDS[0].sequence_number,
        "last": RECORDS[-1].sequence_number,
    }


@pytest.mark.parametrize(
    ("show", "token", "why"),
    [
        (False, "boss", "set api.show_payloads: true"),
        (False, "", "set api.show_payloads: true"),
        (True, "", "operations need a credential: set POLLER_TOKEN, or give --token-file FILE, with a token"),
        (True, "nobody", "operations need a credential: set POLLER_TOKEN, or give --token-file FILE, with"),
        (True, "looker", "this needs the role operate, and the token looker has the role view"),
    ],
)
def test_without_the_role_and_the_setting_records_are_listed_without_data_and_the_answer_says_what_is_missing(
    tokens: Path, show: bool, token: str, why: str
) -> None:
    given = setting(tokens, show=show)
    status, body = asked(given, token=token)
    assert status == 200
    validate(body, "PeekAnswer")
    assert body["payloads"] is False
    assert why in body["missing"]
    assert [record["sequence_number"] for record in body["records"]] == [
        record.sequence_number for record in RECORDS
    ]
    for record in body["records"]:
        assert record["payload"] is record["keys"] is record["new_image"] is record["old_image"] is None
        assert record["user_records"] == []
    assert "paid" not in str([record | {"reasons": []} for record in body["records"]])
    assert shown(given) == []


@pytest.mark.parametrize(("token", "status"), [("", 401), ("nobody", 401), ("looker", 200)])
def test_records_are_a_read_that_needs_a_token_where_reads_do(tokens: Path, token: str, status: int) -> None:
    given = setting(tokens, reads=Reads.TOKEN)
    assert asked(given, token=token)[0] == status
    model = given.peeking
    assert isinstance(model, PeekModel)
    assert len(model.asked) == (status == 200)


def test_where_changes_need_no_credential_payloads_need_none_but_the_setting() -> None:
    for show in (True, False):
        api = ApiSettings(allow_unauthenticated=True, show_payloads=show)
        given = Setting(api=api, peeking=PeekModel(), observer=Told())
        status, body = asked(given)
        assert (status, body["payloads"]) == (200, show)
        assert [event.who for event in shown(given)] == (["unauthenticated"] if show else [])


def test_payloads_are_not_shown_unless_the_settings_say_so() -> None:
    assert ApiSettings().show_payloads is False


def test_what_is_asked_reaches_the_daemon(tokens: Path) -> None:
    model = PeekModel()

    async def use(run: Running) -> None:
        await run.get("/v1/mappings/stream%2Forders/records?shard=3&from=2026-01-01T00:00:00%2B01:00&limit=2")
        await run.get(f"{PATH}?from=AFTER:12")
        await run.get(PATH)

    serving(use, setting(tokens, model, show=False))
    assert model.asked == [
        ("stream/orders", PeekRequest(shard="3", start="2026-01-01T00:00:00+01:00", limit=2)),
        (MAPPING, PeekRequest(start="AFTER:12")),
        (MAPPING, PeekRequest()),
    ]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=0", "limit: '0': write a whole number from 1 to 100"),
        ("limit=101", "limit: '101': write a whole number from 1 to 100"),
        ("limit=x", "limit: 'x': write a whole number from 1 to 100"),
        ("limit=%D9%A1", "write a whole number"),
        ("limit=" + "9" * 1000, "write a whole number"),
        ("from=1&from=2", "'from' is given twice"),
        ("form=fault", "'form' is no parameter; write shard, from, limit"),
        ("shard=" + "x" * 2000, "shard: is longer than 1024 characters"),
    ],
)
def test_a_wrong_parameter_is_refused_with_the_remedy(tokens: Path, query: str, text: str) -> None:
    model = PeekModel()
    status, body = asked(setting(tokens, model), f"{PATH}?{query}")
    assert (status, body["error"]) == (400, "bad_request")
    assert text in body["message"]
    assert model.asked == []


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (ApiErrorType.MISSING, 404, "not_found"),
        (ApiErrorType.PARAMETER, 400, "bad_request"),
        (ApiErrorType.CONFLICT, 409, "conflict"),
        (ApiErrorType.THROTTLED, 429, "too_many_requests"),
        (ApiErrorType.SERVICE, 500, "internal_server_error"),
    ],
)
def test_refusals_have_the_form_of_v1(tokens: Path, fault: ApiErrorType, status: int, error: str) -> None:
    given = setting(tokens, PeekModel(trouble=ApiError(fault, "because")))
    assert asked(given, token="carer") == (status, {"error": error, "message": "because"})
    assert shown(given) == []


def test_a_server_without_a_daemon_says_that_it_reads_no_records() -> None:
    status, body = asked(Setting())
    assert (status, body["message"]) == (501, NO_PEEKING)


def test_hostile_payloads_are_escaped_or_replaced(tokens: Path) -> None:
    hostile = RECORDS[0].__replace__(payload=payload(HOSTILE_TEXT))
    status, body = asked(setting(tokens, PeekModel((hostile,))), token="carer")
    assert status == 200
    found = body["records"][0]["payload"]["text"]
    assert found.startswith("\x1b]0;owned\x07\x1b[2J\x9b31m \u202e")
    assert found.endswith("\x00 end")
