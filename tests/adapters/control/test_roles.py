"""Roles of tokens, and who may read: at a running server, in the file of tokens, in the audit, and for the commands that ask."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from adapters.commands.mappings import app as mappings_app
from adapters.commands.remedies import KEY_NEEDED
from adapters.control.access.authentication import NO_BEARER, NO_KEYS_TO_READ, NO_TOKENS
from adapters.control.access.credential_entries import Token, read_tokens
from adapters.control.access.credential_files import parsed
from adapters.control.server import plugin
from adapters.control.settings import ApiSettings, ServerSettings, doubts
from adapters.observers.log_events import fields_of
from poller.cli import application
from poller.clock import LoopClock
from poller.commands.bearer_token import GIVE_ONE
from poller.domain.access import Reads, Role
from poller.domain.errors import InvalidConfiguration
from poller.domain.telemetry.daemon_events import ApiChange
from poller.domain.telemetry.labels import RefusedFor
from poller.domain.telemetry.observers import Observer
from poller.plugins import validated
from poller.testing.telemetry_events import MAPPING
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_access import Keys, by_sdk, model_with_one, sent, write
from tests.adapters.control.test_audit import Told
from tests.adapters.control.test_browser_requests import Seen
from tests.adapters.control.test_lambda_api import ID, ROOT, TAGS
from tests.adapters.control.test_sigv4 import KEY, SECRET, signed, with_header

TOKENS = {"looker": "see-1", "carer": "do-2", "boss": "all-3", "old": "plain-4"}
ROLES = {"looker": Role.VIEW, "carer": Role.OPERATE, "boss": Role.ADMIN, "old": Role.ADMIN}
V1_READS = ("/v1/mappings", f"/v1/mappings/{MAPPING}", "/v1/openapi.json", "/v1/scaling")
LAMBDA_READS = (ROOT, f"{ROOT}/{ID}", TAGS, f"{ROOT}/", f"{ROOT}/{ID}/", f"{TAGS}/")
OPEN_PATHS = ("/healthz", "/readyz", "/metrics")
SWITCHES = (f"/v1/mappings/{ID}/enable", f"/v1/mappings/{ID}/disable")


@pytest.fixture
def files(tmp_path: Path) -> Keys:
    found = Keys(tmp_path)
    write(found.keys, f"{KEY}: {SECRET}\n")
    lines = [f"{name}: {{token: {TOKENS[name]}, role: {ROLES[name]}}}\n" for name in ("looker", "carer")]
    write(
        found.tokens,
        "".join(lines) + f"boss:\n  token: {TOKENS['boss']}\n  role: admin\nold: {TOKENS['old']}\n",
    )
    return found


def closed(files: Keys, observer: Observer | None = None) -> Setting:
    """A server whose reads need a credential, and that has all files."""
    model = model_with_one()
    api = files.api.model_copy(update={"reads": Reads.TOKEN})
    return Setting(api=api, control=model, tags=model, clock=LoopClock(), observer=observer)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


@pytest.mark.parametrize("name", TOKENS)
def test_every_role_reads_and_only_an_admin_changes(files: Keys, name: str) -> None:
    async def use(run: Running) -> tuple[list[int], list[int], list[int]]:
        reads = [(await run.get(path, headers=bearer(name)))[0] for path in V1_READS]
        heads = [(await run.ask("HEAD", path, headers=bearer(name)))[0] for path in V1_READS]
        changes = [(await run.ask("POST", path, headers=bearer(name)))[0] for path in SWITCHES]
        return reads, heads, changes

    setting = closed(files)
    reads, heads, changes = serving(use, setting)
    assert reads == heads == [200] * len(V1_READS)
    assert changes == ([202] * 2 if ROLES[name] is Role.ADMIN else [403] * 2)
    assert bool(setting.control.asked) is (ROLES[name] is Role.ADMIN)  # type: ignore[union-attr]  # it is the model


@pytest.mark.parametrize("name", ["looker", "carer"])
def test_a_role_that_does_not_suffice_is_refused_with_the_one_that_does(files: Keys, name: str) -> None:
    status, body, headers = serving(
        lambda run: run.ask("POST", SWITCHES[0], headers=bearer(name)), closed(files)
    )
    assert (status, body["error"]) == (403, "forbidden")
    assert body["message"].startswith(
        f"this needs the role admin, and the token {name} has the role {ROLES[name]}; send "
    )
    assert "WWW-Authenticate" not in headers
    assert TOKENS[name] not in body["message"]


def test_a_role_that_changes_counts_from_the_next_request_on(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        found = []
        for role in ("view", "admin", "operate", "nonsense"):
            write(files.tokens, f"a: {{token: {TOKENS['boss']}, role: {role}}}\n")
            found.append((await run.ask("POST", SWITCHES[0], headers=bearer("boss")))[0])
        return found

    assert serving(use, closed(files)) == [403, 202, 403, 403]


@given(st.sampled_from(Role), st.sampled_from(Role), st.sampled_from(Role))
def test_roles_are_ordered(low: Role, middle: Role, high: Role) -> None:
    assert low.includes(low)
    assert low.includes(high) or high.includes(low)
    assert low.includes(high) or not (low.includes(middle) and middle.includes(high))
    assert Role.ADMIN.includes(low)
    assert low.includes(Role.VIEW)


# Who may read.


@pytest.mark.parametrize(
    ("listen", "reads", "everybody", "is_open"),
    [
        ("127.0.0.1:0", None, False, True),
        ("localhost:0", None, False, True),
        ("0.0.0.0:0", None, False, False),
        ("[::]:0", None, False, False),
        ("0.0.0.0:0", "open", False, True),
        ("0.0.0.0:0", "token", False, False),
        ("127.0.0.1:0", "open", False, True),
        ("127.0.0.1:0", "token", False, False),
        ("127.0.0.1:0", None, True, True),
        ("127.0.0.1:0", "open", True, True),
    ],
)
def test_reads_are_open_on_loopback_and_where_the_settings_say_so(
    listen: str, reads: str | None, everybody: bool, is_open: bool
) -> None:
    model = model_with_one()
    api = ApiSettings.model_validate({"reads": reads, "allow_unauthenticated": everybody})

    async def use(run: Running) -> dict[str, int]:
        return {path: (await run.get(path))[0] for path in (*OPEN_PATHS, *V1_READS, *LAMBDA_READS)}

    found = serving(use, Setting(listen=listen, api=api, control=model, tags=model))
    assert {found[path] for path in OPEN_PATHS} == {200}
    assert {found[path] for path in V1_READS} == {200 if is_open else 401}
    assert {found[path] for path in LAMBDA_READS} == {200 if is_open else 403}


@pytest.mark.parametrize("with_file", [True, False])
def test_a_read_without_a_token_is_answered_with_what_is_missing(files: Keys, with_file: bool) -> None:
    setting = closed(files) if with_file else Setting(api=ApiSettings(reads=Reads.TOKEN))
    text = NO_BEARER if with_file else NO_TOKENS

    async def use(run: Running) -> list[tuple[int, Any, Any]]:
        strange: tuple[dict[str, str], ...] = (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": f"Basic {TOKENS['boss']}"},
        )
        return [await run.get("/v1/mappings", headers=headers) for headers in strange]

    for status, body, headers in serving(use, setting):
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert body == {"error": "unauthorized", "message": text.format(what="reads")}


@pytest.mark.parametrize("path", LAMBDA_READS)
def test_reads_of_lambda_s_paths_need_a_signature(files: Keys, path: str) -> None:
    async def use(run: Running) -> list[tuple[int, str]]:
        request = signed("GET", path)
        answers = [
            await sent(run, request),
            # The same again: whoever recorded it could have recorded the answer.
            await sent(run, request),
            await sent(run, signed("GET", path, secret="guess")),
            await sent(run, signed("GET", path, key="AKIDUNKNOWN")),
            await sent(run, with_header(request, "x-amz-date", "20200101T000000Z")),
            await run.ask("GET", path),
            await run.ask("GET", path, headers=bearer("boss")),
        ]
        return [(status, headers.get("x-amzn-errortype", "")) for status, _, headers in answers]

    found = serving(use, closed(files))
    assert found[:2] == [(200, "")] * 2
    assert found[2:4] == [(403, "InvalidSignatureException"), (403, "UnrecognizedClientException")]
    assert [status for status, _ in found[4:]] == [403] * 3
    assert found[5] == (403, "MissingAuthenticationTokenException")


def test_the_sdk_reads_where_reads_need_a_signature(files: Keys) -> None:
    async def use(run: Running) -> None:
        (listed,) = (await by_sdk(run, "list_event_source_mappings"))["EventSourceMappings"]
        assert (await by_sdk(run, "get_event_source_mapping", UUID=ID))["UUID"] == listed["UUID"]
        with pytest.raises(ClientError) as caught:
            await by_sdk(run, "list_event_source_mappings", secret="guess")
        assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"

    serving(use, closed(files))


def test_without_a_file_of_keys_a_read_says_that_there_is_none() -> None:
    model = model_with_one()
    setting = Setting(api=ApiSettings(reads=Reads.TOKEN), control=model, tags=model)
    status, body, _ = serving(lambda run: run.get(ROOT), setting)
    assert (status, body) == (403, {"message": f"Missing Authentication Token {NO_KEYS_TO_READ}"})


def test_a_stranger_learns_nothing_of_what_there_is(files: Keys) -> None:
    async def use(run: Running) -> tuple[set[Any], set[Any]]:
        v1 = [await run.exact("GET", f"/v1/mappings/{each}") for each in (MAPPING, "nothing")]
        aws = [await run.exact("GET", f"{ROOT}/{each}") for each in (ID, MAPPING)]
        return {found[:2] for found in v1}, {found[:2] for found in aws}

    assert [len(found) for found in serving(use, closed(files))] == [1, 1]


def test_refused_reads_are_reported_and_refused_changes_are_told_by_the_audit(files: Keys) -> None:
    seen, told = Seen(), Told()
    setting = closed(files, told)
    setting.strangers.observer = seen

    async def use(run: Running) -> None:
        for path in (*V1_READS, *LAMBDA_READS, *OPEN_PATHS):
            await run.get(path)
        assert len(seen.reasons) == len(V1_READS) + len(LAMBDA_READS)
        await run.get("/v1/mappings", headers=bearer("looker"))
        await sent(run, signed("GET", ROOT))
        await run.ask("POST", SWITCHES[0])

    serving(use, setting)
    assert seen.reasons == [RefusedFor.CREDENTIAL] * (len(V1_READS) + len(LAMBDA_READS))
    assert len(told.changes) == 1


def test_open_changes_and_closed_reads_contradict_each_other() -> None:
    api = {"allow_unauthenticated": True, "reads": "token"}
    with pytest.raises(
        InvalidConfiguration,
        match=r"api\.reads: .*reads would need a credential, and changes none; remove it",
    ):
        validated(plugin, {"listen": "127.0.0.1:0", "api": api}, place="control http")


@pytest.mark.parametrize(
    ("listen", "api", "field"),
    [
        ("0.0.0.0:1", {}, "listen"),
        ("0.0.0.0:1", {"access_keys_file": "keys"}, "listen"),
        ("127.0.0.1:1", {"reads": "token"}, "api.reads"),
        ("0.0.0.0:1", {"reads": "token"}, "api.reads"),
        ("0.0.0.0:1", {"reads": "open"}, None),
        ("0.0.0.0:1", {"tokens_file": "tokens"}, None),
        ("127.0.0.1:1", {}, None),
        ("127.0.0.1:1", {"allow_unauthenticated": True}, None),
    ],
)
def test_that_nobody_can_read_is_said_beforehand(listen: str, api: dict[str, Any], field: str | None) -> None:
    found = doubts(ServerSettings.model_validate({"listen": listen, "api": api}))
    assert [each.field for each in found] == ([] if field is None else [field])
    assert all(each.mild and "api.tokens_file" in each.remedy for each in found)


# The file of tokens.


BAD_TOKENS: list[tuple[str, list[str]]] = [
    ("a: {token: hunter2, role: root}", ["line 1: a.role: is no role; write one of view, operate, admin"]),
    ("a: {token: hunter2, role: Admin}", ["line 1: a.role: is no role"]),
    ("a: {token: hunter2, role: ''}", ["line 1: a.role: is no role"]),
    ("a: {token: hunter2, role: }", ["line 1: a.role: is no role"]),
    ("a: {token: hunter2, role: true}", ["line 1: a.role: is no role"]),
    ("a: {token: hunter2, role: 1}", ["line 1: a.role: is no role"]),
    ("a: {token: hunter2, role: [view]}", ["line 1: a.role: is no role"]),
    ("a: {token: view, role: hunter2}", ["line 1: a.token: the token is the word of a role", "line 1: a.role: is no role"]),
    ("token: hunter2\nrole: view", ["line 2: role: the token is the word of a role; write both members, token and role"]),
    ("a: {token: 12345678, role: view}", ["line 1: a.token: the token is read as a number, not as a text; put it in quotes"]),
    ("a: {token: 1e3, role: view}", ["line 1: a.token: the token is read as a number"]),
    ("a: {token: true, role: view}", ["line 1: a.token: the token is read as true or false, not as a text; put it in quotes"]),
    ("a: {token: [hunter2], role: view}", ["line 1: a.token: the token is read as several values, not as a text; write one text"]),
    ("a: {token: {hunter2: b}, role: view}", ["line 1: a.token: the token is read as several values"]),
    ("a: {token: , role: view}", ["line 1: a.token: has no token; write one behind the colon"]),
    ("a: {token: '', role: view}", ["line 1: a.token: the token is empty, too long or has spaces; write 1 to 1024 ASCII characters without spaces"]),
    ("a: {token: 'hunter2 b', role: view}", ["line 1: a.token: the token is empty"]),
    ("a: {token: hünter2, role: view}", ["line 1: a.token: the token is empty"]),
    ("a: {token: " + "h" * 1025 + ", role: view}", ["line 1: a.token: the token is empty, too long"]),
    ("a: {role: view}", ["line 1: a: has no token; write both members, token and role, the role as one of view, operate, admin"]),
    ("a: {token: hunter2}", ["line 1: a: has no role; write both members"]),
    ("a: {}", ["line 1: a: has no token and no role; write both members"]),
    ("a:\n  token: b\n  role: view\n  hunter2: c", ["line 4: a: has a member that is neither token nor role; remove it"]),
    ("a: {token: b, role: view, 5: c}", ["line 1: a: has a member that is neither token nor role"]),
    ("a:\n  token: b\n  role: view\n  role: admin", ["line 4: a.role: is there twice; remove one"]),
    ("a:\n  token: b\n  token: hunter2\n  role: view", ["line 3: a.token: is there twice; remove one"]),
    ("a: {tokn: hunter2, role: view}", ["line 1: a: has no token", "line 1: a: has a member that is neither"]),
    ("a: [hunter2, view]", ["line 1: a: the token is read as several values, not as a text; write one text"]),
    ("a: 12345678", ["line 1: a: the token is read as a number, not as a text; put it in quotes"]),
    ("a: null", ["line 1: a: has no token; write one behind the colon"]),
    ("a: hunter2\nb: hunter2", ["line 2: b has the same token as a on line 1; give each name a token of its own"]),
    ("a: hunter2\nb: {token: c, role: view}\nd: {token: hunter2, role: view}", ["line 3: d has the same token as a on line 1"]),
    ("a: &x {token: hunter2, role: view}\nb: *x", ["line 2: b has the same token as a on line 1"]),
    ("a: &x {token: hunter2, role: view}\nb: {<<: *x, role: admin}", ["line 2, column 5: not lines of `name: secret`"]),
    ("a: {token: b, role: view}\na: {token: hunter2, role: admin}", ["line 2: a is there twice, first on line 1; remove one"]),
    ("a: {? [hunter2] : b}", ["line 1, column 7: not lines of `name: secret`"]),
    ("5: {token: hunter2, role: view}", ["line 1: the name is read as a number or the like"]),
    ("'hunter2 x': {token: hunter2, role: view}", ["line 1: the name is no word"]),
    ("{token: hunter2, role: view}\n---\n", ["line 2, column 1: not lines of `name: secret`"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), BAD_TOKENS, ids=[content[:40] for content, _ in BAD_TOKENS])
def test_a_bad_file_of_tokens_is_told_by_line_and_field(content: str, expected: list[str]) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parsed(content.encode(), read_tokens, place="f")
    told = caught.value.problems
    assert len(told) == len(expected)
    for line, beginning in zip(told, expected, strict=True):
        assert line.startswith(f"f: {beginning}")
        assert "hunter2" not in line
        assert "; " in line


def test_the_role_of_a_plain_text_is_admin_and_the_others_are_as_given(files: Keys) -> None:
    found = parsed(files.tokens.read_bytes(), read_tokens, place="f")
    assert found == {name: Token(text, ROLES[name]) for name, text in TOKENS.items()}


def test_a_token_is_not_in_what_python_shows_of_it() -> None:
    assert "hunter2" not in repr(Token("hunter2", Role.VIEW))


NAMES = st.from_regex(r"[A-Za-z][\w.-]{0,20}", fullmatch=True).filter(str.isascii)
TEXTS = st.from_regex(r"[!-~]{1,30}", fullmatch=True).filter(lambda text: text not in list(Role))


@given(st.dictionaries(NAMES, st.tuples(TEXTS, st.sampled_from([None, *Role])), min_size=1))
def test_whatever_tokens_a_file_has_each_has_one_name_and_one_role(
    tokens: dict[str, tuple[str, Role | None]],
) -> None:
    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    lines = [
        f"{quoted(name)}: " + (quoted(text) if role is None else f"{{token: {quoted(text)}, role: {role}}}")
        for name, (text, role) in tokens.items()
    ]
    found, wrong = read_tokens("\n".join(lines).encode())
    if len({text for text, _ in tokens.values()}) == len(tokens):
        assert found == {name: Token(text, role or Role.ADMIN) for name, (text, role) in tokens.items()}
    else:
        assert (dict(found), bool(wrong)) == ({}, True)


# The audit.


def test_the_audit_has_the_name_and_the_role_of_the_sender(files: Keys) -> None:
    seen = Told()

    async def use(run: Running) -> None:
        for name in (*TOKENS, None):
            await run.ask("POST", SWITCHES[1], headers=bearer(name) if name else {})
        await sent(run, signed("DELETE", f"{ROOT}/{ID}"))

    serving(use, closed(files, seen))
    assert [(each.who, each.role) for each in seen.changes] == [
        *ROLES.items(),
        ("unauthenticated", None),
        (KEY, Role.ADMIN),
    ]
    assert [each.refused.partition(":")[0] for each in seen.changes] == [
        "Forbidden",
        "Forbidden",
        "",
        "",
        "Unauthorized",
        "",
    ]
    shown = [fields_of(each) for each in seen.changes]
    assert (shown[0]["who"], shown[0]["role"]) == ("looker", "view")
    assert "the role admin, and the token looker has the role view" in shown[0]["refused"]
    assert "role" not in shown[4]


def test_reads_are_no_changes(files: Keys) -> None:
    seen: list[ApiChange] = []
    told = Told()

    async def use(run: Running) -> None:
        for path in (*V1_READS, *LAMBDA_READS):
            await run.get(path)
        seen.extend(told.changes)

    serving(use, closed(files, told))
    assert seen == []


# The commands that ask.


def status(*words: str, token: str | None = None) -> Result:
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "POLLER_TOKEN": token}
    return CliRunner().invoke(application([]), ["status", *words], env=env)


def test_status_sends_a_token_from_the_environment_or_from_a_file(files: Keys, tmp_path: Path) -> None:
    right, wrong = tmp_path / "token", tmp_path / "wrong"
    right.write_text(f"{TOKENS['looker']}\n")
    wrong.write_text("nonsense")

    async def use(run: Running) -> dict[str, Result]:
        url = ("--url", run.url)
        calls: dict[str, tuple[tuple[str, ...], str | None]] = {
            "none": (url, None),
            "empty": (url, ""),
            "variable": (url, TOKENS["carer"]),
            "json": ((*url, "--json"), TOKENS["carer"]),
            "file": ((*url, "--token-file", str(right)), None),
            "file first": ((*url, "--token-file", str(right)), "nonsense"),
            "unknown": (url, "nonsense"),
            "wrong file first": ((*url, "--token-file", str(wrong)), TOKENS["boss"]),
        }
        return {
            name: await asyncio.to_thread(status, *words, token=token)
            for name, (words, token) in calls.items()
        }

    found = serving(use, closed(files))
    good = {"variable", "json", "file", "file first"}
    assert {name for name, each in found.items() if each.exit_code == 0} == good
    for name in found.keys() - good:
        assert found[name].exit_code == 2
        assert found[name].stdout == ""
        assert found[name].stderr.count("\n") == 1
        assert GIVE_ONE in found[name].stderr
    for name in ("none", "empty"):
        assert "the daemon needs a token; set POLLER_TOKEN, or" in found[name].stderr
    for name in ("unknown", "wrong file first"):
        assert "the daemon does not know the token that was sent; " in found[name].stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no token; write the token alone"),
        (b"\n", "is no token"),
        (b"operator: hunter2", "is no token"),
        (b"hunter2\nhunter2\n", "is no token"),
        (b"hunter2\xff", "is no token"),
        (b"hunter2\r\nX-Evil: 1", "is no token"),
        (b"h" * 5000, "is no token"),
        (None, "No such file or directory; name a file that holds the token alone"),
    ],
)
def test_a_file_without_a_token_is_told_and_nothing_is_asked(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    found = status("--token-file", str(file), "--url", "http://127.0.0.1:1")
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert f"--token-file: {str(file)!r}: {problem}" in found.stderr
    assert "hunter2" not in found.stderr


@pytest.mark.parametrize("text", ["a b", "ä", "\n", "a\nb", "a" * 1025])
def test_a_variable_that_holds_no_token_is_told(text: str) -> None:
    found = status("--url", "http://127.0.0.1:1", token=text)
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert "environment POLLER_TOKEN: is no token; write the token alone" in found.stderr


class Elsewhere(BaseHTTPRequestHandler):
    """Leads to the server's `target`, if it has one, and keeps the headers of requests."""

    def do_GET(self) -> None:
        self.server.seen.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]  # set by `elsewhere`
        target: str = self.server.target  # type: ignore[attr-defined]  # set by `elsewhere`
        self.send_response(302 if target else 404)
        if target:
            self.send_header("Location", f"{target}/v1/mappings")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def elsewhere(target: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """The URL of a server that leads to `target`, and the credentials that it gets."""
    seen: list[str | None] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        server.seen, server.target = seen, target  # type: ignore[attr-defined]  # the handler's only way to know
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_token_does_not_follow_to_where_an_answer_leads() -> None:
    with elsewhere() as (last, there), elsewhere(last) as (first, here):
        assert status("--url", first, token="hunter2").exit_code == 2
    assert (here, there) == (["Bearer hunter2"], [None])


def test_a_read_of_poller_mappings_says_that_it_needs_a_key(
    files: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    async def use(run: Running) -> list[Result]:
        words = ["list", "--url", run.url]
        lacking = await asyncio.to_thread(CliRunner().invoke, mappings_app, words)
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        return [lacking, await asyncio.to_thread(CliRunner().invoke, mappings_app, words, env=keys)]

    lacking, done = serving(use, closed(files))
    assert lacking.exit_code == 2
    assert KEY_NEEDED in lacking.stderr
    assert (done.exit_code, ID in done.stdout) == (0, True)
