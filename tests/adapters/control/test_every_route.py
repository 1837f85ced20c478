"""Owns the table of all routes and of who may use each: everybody, holders of tokens by role, holders of access keys.

The routes are those of the OpenAPI document, and the files of the page. One that the table does not have fails the test: somebody has to decide who may use it.
"""

from collections.abc import Mapping

import pytest

from adapters.control.live.page_files import page_files
from adapters.control.openapi.document import document
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.live.test_updates import Kept
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.peeked import PeekModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_access import Keys, sent
from tests.adapters.control.test_functions_api import Functions
from tests.adapters.control.test_lambda_api import ID, TAGS
from tests.adapters.control.test_roles import bearer, closed, files
from tests.adapters.control.test_sigv4 import signed

__all__ = ["files"]

EVERYBODY, VIEW, OPERATE, ADMIN, KEY = "everybody", "view", "operate", "admin", "access key"
"""Who may use a route at the least. KEY: holders of an access key alone, since these paths are Lambda's."""

TABLE: Mapping[tuple[str, str], str] = {
    ("get", "/healthz"): EVERYBODY,
    ("get", "/readyz"): EVERYBODY,
    ("get", "/metrics"): EVERYBODY,
    ("get", "/"): EVERYBODY,
    ("get", "/v1/mappings"): VIEW,
    ("get", "/v1/mappings/{id}"): VIEW,
    ("get", "/v1/mappings/{id}/records"): VIEW,
    ("get", "/v1/openapi.json"): VIEW,
    ("get", "/v1/scaling"): VIEW,
    ("get", "/v1/history"): VIEW,
    ("get", "/v1/updates"): VIEW,
    ("get", "/v1/operations"): VIEW,
    ("get", "/v1/operations/{id}"): VIEW,
    ("post", "/v1/mappings/{id}/operations"): OPERATE,
    ("delete", "/v1/operations/{id}"): OPERATE,
    ("post", "/v1/functions/{name}/breaker/close"): OPERATE,
    ("get", "/v1/aliases"): VIEW,
    ("get", "/v1/functions/{name}/aliases"): VIEW,
    ("get", "/v1/functions/{name}/aliases/{alias}"): VIEW,
    ("post", "/v1/functions/{name}/aliases/{alias}/shifts"): OPERATE,
    ("post", "/v1/functions/{name}/aliases/{alias}/rollback"): OPERATE,
    ("get", "/v1/functions/{name}/calls"): VIEW,
    ("post", "/v1/functions/{name}/operations"): OPERATE,
    ("post", "/v1/mappings/{id}/enable"): ADMIN,
    ("post", "/v1/mappings/{id}/disable"): ADMIN,
    ("get", "/2015-03-31/functions"): KEY,
    ("get", "/2015-03-31/functions/{name}"): KEY,
    ("get", "/2015-03-31/functions/{name}/configuration"): KEY,
    ("get", "/2015-03-31/functions/{name}/aliases"): KEY,
    ("post", "/2015-03-31/functions/{name}/aliases"): KEY,
    ("get", "/2015-03-31/functions/{name}/aliases/{alias}"): KEY,
    ("put", "/2015-03-31/functions/{name}/aliases/{alias}"): KEY,
    ("delete", "/2015-03-31/functions/{name}/aliases/{alias}"): KEY,
    ("get", "/2015-03-31/functions/{name}/versions"): KEY,
    ("post", "/2015-03-31/functions/{name}/invocations"): KEY,
    ("post", "/2014-11-13/functions/{name}/invoke-async"): KEY,
    ("get", "/2019-09-25/functions/{name}/event-invoke-config"): KEY,
    ("put", "/2019-09-25/functions/{name}/event-invoke-config"): KEY,
    ("post", "/2019-09-25/functions/{name}/event-invoke-config"): KEY,
    ("delete", "/2019-09-25/functions/{name}/event-invoke-config"): KEY,
    ("get", "/2019-09-25/functions/{name}/event-invoke-config/list"): KEY,
    ("post", "/2021-11-15/functions/{name}/response-streaming-invocations"): KEY,
    ("get", "/2015-03-31/event-source-mappings"): KEY,
    ("post", "/2015-03-31/event-source-mappings"): KEY,
    ("get", "/2015-03-31/event-source-mappings/{UUID}"): KEY,
    ("put", "/2015-03-31/event-source-mappings/{UUID}"): KEY,
    ("delete", "/2015-03-31/event-source-mappings/{UUID}"): KEY,
    ("get", "/2017-03-31/tags/{Arn}"): KEY,
    ("post", "/2017-03-31/tags/{Arn}"): KEY,
    ("delete", "/2017-03-31/tags/{Arn}"): KEY,
}
PAGE_FILES = dict.fromkeys((("get", file.path) for file in page_files()), EVERYBODY)
"""What the page is made of holds no data, so that everybody may have every file."""
HOLDERS = {
    "nobody": {EVERYBODY},
    "looker": {EVERYBODY, VIEW},
    "carer": {EVERYBODY, VIEW, OPERATE},
    "boss": {EVERYBODY, VIEW, OPERATE, ADMIN},
    "a key": {EVERYBODY, KEY},
}
REFUSED = {401, 403}
NOT_SERVED = {
    ("post", "/2021-11-15/functions/{name}/response-streaming-invocations"),
}
"""Operations of Lambda that nobody can use here. They answer 501."""
BODIES = {
    ("post", "/v1/mappings/{id}/operations"): b'{"action": "retry"}',
    ("post", "/v1/functions/{name}/operations"): b'{"action": "retry", "calls": "all"}',
}
METHODS = {"get", "put", "post", "delete"}


def declared() -> set[tuple[str, str]]:
    return {
        (method, path) for path, item in document()["paths"].items() for method in item if method in METHODS
    }


def place(path: str) -> str:
    """A path that leads to something."""
    if path.startswith("/2017"):
        return TAGS
    filled = path.replace("{UUID}", ID).replace("{name}", "orders").replace("{alias}", "live")
    if path.startswith("/v1/operations"):
        return filled.replace("{id}", "op-0")
    return filled.replace("{id}", ID)


def whole(files: Keys) -> Setting:
    """A server that has all parts, and shows payloads; reads need a credential."""
    setting = closed(files)
    setting.operations, setting.peeking, setting.functions = OperationModel(), PeekModel(), Functions()
    setting.history = Kept(1)
    setting.calls = CallerModel()
    setting.api = setting.api.model_copy(update={"show_payloads": True})
    return setting


async def status_of(run: Running, who: str, method: str, path: str, **more: object) -> int:
    """The status of a request of this holder. Where one needs a body, it has one that says nothing."""
    target = place(path)
    body = BODIES.get((method, path), b"" if method in {"get", "delete"} else b"{}")
    if who == "a key":
        request = signed(method.upper(), target, body=body) if body else signed(method.upper(), target)
        return (await sent(run, request))[0]
    headers = {} if who == "nobody" else bearer(who)
    headers |= {"Content-Type": "application/json"} if body else {}
    return (await run.ask(method.upper(), target, data=body or None, headers=headers))[0]


def test_the_table_has_every_route() -> None:
    assert declared() | {("get", "/")} == set(TABLE)
    assert {path.partition("/page/")[0] for _, path in PAGE_FILES} == {"", "/"}


@pytest.mark.parametrize("who", HOLDERS)
def test_each_may_use_what_the_table_says_and_nothing_else(files: Keys, who: str) -> None:
    async def use(run: Running) -> dict[tuple[str, str], int]:
        return {route: await status_of(run, who, *route) for route in table}

    table = {**TABLE, **PAGE_FILES}

    found = serving(use, whole(files))
    allowed = {route for route, status in found.items() if status not in REFUSED}
    assert allowed == {route for route, needed in table.items() if needed in HOLDERS[who]}
    failing = {route for route, status in found.items() if status >= 500}
    assert failing == {route for route in NOT_SERVED if TABLE[route] in HOLDERS[who]}
