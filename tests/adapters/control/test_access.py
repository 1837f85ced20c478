"""Who may change things: signed requests and bearer tokens at a running server, and the files that hold the secrets."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from adapters.commands.mappings import app as mappings_app
from adapters.commands.remedies import KEY_NEEDED
from adapters.control.access.authentication import NO_KEYS, NO_TOKENS, token_name
from adapters.control.access.credential_entries import Token, read_keys
from adapters.control.access.credential_files import KEPT, SecretFile, file_errors, parsed
from adapters.control.access.sigv4 import Request
from adapters.control.server import plugin
from adapters.control.settings import ApiSettings
from adapters.observers.library_lines import LibraryLines
from poller.clock import LoopClock
from poller.domain.access import Role
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, validated
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.adapters.control.test_lambda_api import ARN, ID, ON_QUEUE, QUEUE, ROOT, TAGS
from tests.adapters.control.test_sigv4 import KEY, SECRET, signed, with_header

TOKEN = "0123456789abcdef-hunter2"
CHANGES = [
    ("POST", ROOT),
    ("PUT", f"{ROOT}/{ID}"),
    ("DELETE", f"{ROOT}/{ID}"),
    ("POST", TAGS),
    ("DELETE", TAGS + "?tagKeys=a"),
]


@dataclass
class Keys:
    """Files of secrets for one server."""

    folder: Path

    @property
    def keys(self) -> Path:
        return self.folder / "keys.yaml"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.yaml"

    @property
    def api(self) -> ApiSettings:
        return ApiSettings(access_keys_file=self.keys, tokens_file=self.tokens)


@pytest.fixture
def files(tmp_path: Path) -> Keys:
    found = Keys(tmp_path)
    write(found.keys, f"{KEY}: {SECRET}\nAKIDOTHER: other\n")
    write(found.tokens, f"operator: {TOKEN}\n")
    return found


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replaces a file as editors do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)


def guarded(files: Keys, model: MappingModel) -> Setting:
    return Setting(api=files.api, control=model, tags=model, clock=LoopClock())


def model_with_one() -> MappingModel:
    model = MappingModel(ids=[ID])
    asyncio.run(model.create(ON_QUEUE))
    model.asked.clear()
    return model


async def sent(run: Running, request: Request) -> tuple[int, Any, Any]:
    """Sends a request as it was signed; the server takes the host for its own."""
    headers = [(name, value) for name, value in request.headers if name.lower() != "content-length"]
    return await run.ask(request.method, request.target, data=request.body or None, headers=headers)


async def by_sdk(run: Running, operation: str, *, secret: str = SECRET, **given: Any) -> Any:
    """What botocore's client makes of the answer to one operation, in a thread as it blocks."""

    def call() -> Any:
        session = botocore.session.Session()
        session.set_credentials(KEY, secret)
        config = Config(retries={"max_attempts": 0}, read_timeout=5)
        client = session.create_client("lambda", "eu-west-1", endpoint_url=run.url, config=config)
        try:
            return getattr(client, operation)(**given)
        finally:
            client.close()

    return await asyncio.to_thread(call)


def test_the_sdk_makes_shows_changes_and_ends_a_mapping(files: Keys) -> None:
    async def use(run: Running) -> None:
        made = await by_sdk(run, "create_event_source_mapping", **ON_QUEUE, Tags={"a": "b"})
        assert (made["UUID"], made["State"], made["BatchSize"]) == (ID, "Creating", 10)
        assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
        listed = await by_sdk(run, "list_event_source_mappings", EventSourceArn=QUEUE, MaxItems=1)
        assert [each["UUID"] for each in listed["EventSourceMappings"]] == [ID]
        await by_sdk(run, "tag_resource", Resource=ARN, Tags={"c d": "+"})
        await by_sdk(run, "untag_resource", Resource=ARN, TagKeys=["a"])
        assert (await by_sdk(run, "list_tags", Resource=ARN))["Tags"] == {"c d": "+"}
        changed = await by_sdk(run, "update_event_source_mapping", UUID=ID, Enabled=False)
        assert changed["State"] == "Disabling"
        ended = await by_sdk(run, "delete_event_source_mapping", UUID=ID)
        assert ended["State"] == "Deleting"
        with pytest.raises(ClientError) as caught:
            await by_sdk(run, "get_event_source_mapping", UUID=ID)
        assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
        assert caught.value.response["Error"]["Message"] == "The resource you requested does not exist."

    serving(use, guarded(files, MappingModel(ids=[ID])))


def test_a_second_equal_call_of_the_sdk_is_a_conflict_and_no_replay(files: Keys) -> None:
    async def use(run: Running) -> Any:
        await by_sdk(run, "create_event_source_mapping", **ON_QUEUE)
        with pytest.raises(ClientError) as caught:
            await by_sdk(run, "create_event_source_mapping", **ON_QUEUE)
        return caught.value.response["Error"]["Code"]

    assert serving(use, guarded(files, MappingModel())) == "ResourceConflictException"


def test_a_wrong_secret_is_reported_to_the_sdk(files: Keys) -> None:
    async def use(run: Running) -> Any:
        with pytest.raises(ClientError) as caught:
            await by_sdk(run, "delete_event_source_mapping", secret="guess", UUID=ID)
        return caught.value.response

    found = serving(use, guarded(files, MappingModel()))
    assert found["Error"]["Code"] == "InvalidSignatureException"
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_without_a_signature_is_refused(files: Keys, method: str, path: str) -> None:
    model = model_with_one()
    status, body, headers = serving(lambda run: run.exact(method, path), guarded(files, model))
    assert (status, body) == (403, b'{"message":"Missing Authentication Token"}')
    assert headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert model.asked == []


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_without_any_configured_key_no_change_passes(method: str, path: str) -> None:
    model = model_with_one()
    setting = Setting(control=model, tags=model, clock=LoopClock())
    body = b"" if method == "DELETE" else b"{}"
    status, found, headers = serving(lambda run: sent(run, signed(method, path, body=body)), setting)
    assert (status, headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")
    assert found == {"message": f"The security token included in the request is invalid. {NO_KEYS}"}
    assert model.asked == []


def test_a_bearer_token_where_none_is_configured_is_answered_with_what_is_missing() -> None:
    setting = Setting(control=model_with_one())
    status, found, _ = serving(lambda run: run.ask("POST", f"/v1/mappings/{ID}/disable"), setting)
    assert (status, found["message"]) == (401, NO_TOKENS.format(what="changes"))


@pytest.mark.parametrize("configured", [False, True])
def test_the_command_says_what_a_change_lacks(
    files: Keys, monkeypatch: pytest.MonkeyPatch, *, configured: bool
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    model = model_with_one()
    setting = guarded(files, model) if configured else Setting(control=model, tags=model)

    async def use(run: Running) -> dict[str, Result]:
        changes = {
            "create": ["FunctionName=a", f"EventSourceArn={QUEUE}"],
            "update": [ID, "BatchSize=1"],
            "delete": [ID],
            "enable": [ID],
            "disable": [ID],
            "get": [ID],
        }
        call = partial(CliRunner().invoke, mappings_app)
        return {
            name: await asyncio.to_thread(call, [name, *words, "--url", run.url])
            for name, words in changes.items()
        }

    done = serving(use, setting)
    assert done.pop("get").exit_code == 0
    for each in done.values():
        assert each.exit_code == 2
        assert KEY_NEEDED in each.stderr
        assert ("has no api.access_keys_file" in each.stderr) is not configured


def test_a_bearer_token_is_no_signature(files: Keys) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    setting = guarded(files, model_with_one())
    status, body, _ = serving(lambda run: run.exact("DELETE", f"{ROOT}/{ID}", headers=headers), setting)
    assert status == 403
    assert TOKEN.encode() not in body


def test_reads_need_no_credential_and_do_not_mind_a_wrong_one(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        wrong = {"Authorization": "AWS4-HMAC-SHA256 nonsense"}
        paths = (ROOT, f"{ROOT}/{ID}", TAGS, "/v1/mappings")
        return [(await run.get(path, headers=headers))[0] for path in paths for headers in ({}, wrong)]

    assert serving(use, guarded(files, model_with_one())) == [200] * 8


def test_a_recorded_request_cannot_be_sent_again(files: Keys) -> None:
    model = model_with_one()

    async def use(run: Running) -> list[tuple[int, str]]:
        request = with_header(signed("PUT", f"{ROOT}/{ID}"), "amz-sdk-invocation-id", "call-1")
        answers = [await sent(run, request) for _ in range(3)]
        return [(status, headers.get("x-amzn-errortype", "")) for status, _, headers in answers]

    refused = (403, "InvalidSignatureException")
    assert serving(use, guarded(files, model)) == [(202, ""), refused, refused]
    assert len(model.asked) == 1


def test_a_refused_request_leaves_its_signature_unused(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        request = signed("PUT", f"{ROOT}/{ID}")
        tampered = with_header(request, "Content-Type", "text/html")
        return [(await sent(run, tampered))[0], (await sent(run, request))[0]]

    assert serving(use, guarded(files, model_with_one())) == [403, 202]


def test_another_body_under_a_signature_is_refused(files: Keys) -> None:
    async def use(run: Running) -> tuple[int, Any, Any]:
        request = signed("PUT", f"{ROOT}/{ID}", body=b'{"BatchSize":1}')
        return await run.ask(
            "PUT", request.target, data=b'{"BatchSize":2}', headers=list(request.headers)[1:-1]
        )

    model = model_with_one()
    status, _, headers = serving(use, guarded(files, model))
    assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    assert model.asked == []


@pytest.mark.parametrize("key", [None, "AKIDUNKNOWN"])
def test_a_strangers_body_is_not_even_read(files: Keys, key: str | None) -> None:
    headers = {"Host": "127.0.0.1:8080"} if key is None else dict(signed(key=key).headers)
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items() if name != "Content-Length")
    head = f"POST {ROOT} HTTP/1.1\r\n{lines}Content-Length: 900000\r\nConnection: close\r\n\r\n"
    found = serving(lambda run: run.raw(head.encode()), guarded(files, MappingModel()))
    assert found.startswith(b"HTTP/1.1 403 ")


def test_no_answer_and_no_log_repeats_a_secret_or_a_signature(
    files: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(run: Running) -> list[Any]:
        request = signed("PUT", f"{ROOT}/{ID}", secret="guess-hunter2")
        bearer = {"Authorization": "Bearer guess-hunter2"}
        return [
            await sent(run, request),
            await sent(run, with_header(request, "Authorization", "AWS4-HMAC-SHA256 Credential=hunter2")),
            await run.ask("POST", f"/v1/mappings/{ID}/enable", headers=bearer),
        ]

    with caplog.at_level(logging.DEBUG):
        answers = serving(use, guarded(files, model_with_one()))
    told = repr([(status, body, dict(headers)) for status, body, headers in answers]) + caplog.text
    for secret in ("hunter2", SECRET, TOKEN):
        assert secret not in told


def test_open_changes_need_no_credential() -> None:
    model = model_with_one()
    setting = Setting(api=ApiSettings(allow_unauthenticated=True), control=model, tags=model)

    async def use(run: Running) -> list[int]:
        wrong = {"Authorization": "AWS4-HMAC-SHA256 nonsense"}
        return [
            (await run.ask("PUT", f"{ROOT}/{ID}", json={}))[0],
            (await run.ask("PUT", f"{ROOT}/{ID}", json={}, headers=wrong))[0],
            (await run.ask("POST", f"/v1/mappings/{ID}/disable"))[0],
        ]

    assert serving(use, setting) == [202, 202, 202]


def test_open_changes_are_not_for_web_pages() -> None:
    model = model_with_one()
    setting = Setting(api=ApiSettings(allow_unauthenticated=True), control=model, tags=model)

    async def use(run: Running) -> list[int]:
        page = {"Origin": "http://evil.example"}
        changes = [*CHANGES, ("POST", f"/v1/mappings/{ID}/disable")]
        return [(await run.ask(method, path, headers=page))[0] for method, path in changes]

    assert serving(use, setting) == [403] * 6
    assert model.asked == []


@pytest.mark.parametrize(
    ("word", "state", "enabled"), [("enable", "Enabling", True), ("disable", "Disabling", False)]
)
def test_a_token_switches_a_mapping(files: Keys, word: str, state: str, enabled: bool) -> None:
    model = model_with_one()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    setting = guarded(files, model)
    status, body, _ = serving(
        lambda run: run.ask("POST", f"/v1/mappings/{ID.upper()}/{word}", headers=headers), setting
    )
    assert (status, body) == (202, {"mapping": ID, "state": state})
    assert model.asked == [("update", (ID, {"Enabled": enabled}))]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer hunter2",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
    ],
)
def test_without_a_known_token_nothing_is_switched(files: Keys, header: str | None) -> None:
    model = model_with_one()
    headers = {} if header is None else {"Authorization": header}
    setting = guarded(files, model)
    status, body, answered = serving(
        lambda run: run.ask("POST", f"/v1/mappings/{ID}/enable", headers=headers), setting
    )
    assert (status, body["error"], answered["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")
    assert "api.tokens_file" in body["message"]
    assert model.asked == []


def test_two_authorizations_are_none(files: Keys) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}")] * 2
    setting = guarded(files, model_with_one())
    status, _, _ = serving(lambda run: run.ask("POST", f"/v1/mappings/{ID}/enable", headers=headers), setting)
    assert status in {400, 401}


def test_an_unknown_mapping_and_one_of_the_file_cannot_be_switched(files: Keys) -> None:
    model = model_with_one()
    headers = {"Authorization": f"bearer  {TOKEN}"}

    async def use(run: Running) -> list[tuple[int, str]]:
        missing = await run.ask("POST", "/v1/mappings/x/enable", headers=headers)
        model.file.add(next(iter(model.known)))
        fixed = await run.ask("POST", f"/v1/mappings/{ID}/enable", headers=headers)
        return [(status, body["error"]) for status, body, _ in (missing, fixed)]

    assert serving(use, guarded(files, model)) == [(404, "not_found"), (409, "conflict")]


def test_without_a_control_nothing_is_switched(files: Keys) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    status, body, _ = serving(
        lambda run: run.ask("POST", f"/v1/mappings/{ID}/enable", headers=headers), Setting(api=files.api)
    )
    assert (status, body["error"]) == (501, "not_implemented")


def test_keys_that_change_count_from_the_next_request_on(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        found: list[int] = []
        for text in (None, f"{KEY}: rotated-secret\n", f"{KEY}: {SECRET}\n", "AKIDOTHER: other\n", "a: [b"):
            if text is not None:
                write(files.keys, text)
            request = signed("PUT", f"{ROOT}/{ID}", headers={"x-amz-try": str(len(found))})
            found.append((await sent(run, request))[0])
        return found

    assert serving(use, guarded(files, model_with_one())) == [202, 403, 202, 403, 403]


def test_tokens_that_change_count_from_the_next_request_on(files: Keys) -> None:
    async def use(run: Running) -> list[int]:
        found = []
        for text in (None, "operator: another-token\n", f"somebody: {TOKEN}\n"):
            if text is not None:
                write(files.tokens, text)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            found.append((await run.ask("POST", f"/v1/mappings/{ID}/enable", headers=headers))[0])
        return found

    assert serving(use, guarded(files, model_with_one())) == [202, 401, 202]


def secret_file(path: Path) -> SecretFile[str]:
    return SecretFile(path, read_keys, field="access_keys_file")


def test_a_link_that_is_swapped_is_followed(tmp_path: Path) -> None:
    """Kubernetes replaces the link `..data` and leaves the others as they are."""
    for version, secret in (("v1", "one"), ("v2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens.yaml").write_text(f"a: {secret}\n")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "tokens.yaml").symlink_to("..data/tokens.yaml")
    file = secret_file(tmp_path / "tokens.yaml")
    assert file.entries() == {"a": "one"}
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert file.entries() == {"a": "two"}


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("a: one\n")
    file, before = secret_file(path), path.stat()
    path.write_text("a: two\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.entries() == {"a": "two"}


def age(path: Path) -> None:
    """Makes a file look as if it had been there for long."""
    os.utime(path, (1_700_000_000, 1_700_000_000))


def turned_into_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def turned_into_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("hunter2"),
        lambda path: path.unlink(),
        turned_into_a_fifo,
        turned_into_a_directory,
    ],
    ids=["bad", "gone", "fifo", "directory"],
)
def test_a_bad_file_keeps_what_was_there_and_is_logged_once(
    tmp_path: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.yaml"
    write(path, "a: one\n")
    file = secret_file(path)
    spoil(path)
    assert [file.entries() for _ in range(3)] == [{"a": "one"}] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert KEPT in caplog.text
    assert "api.access_keys_file" in caplog.text
    told: list[tuple[str, object]] = []
    LibraryLines(lambda _level, event, fields: told.append((event, fields["file"]))).emit(caplog.records[0])
    assert told == [("secret_file_refused", str(path))]
    assert "hunter2" not in caplog.text
    (path.rmdir if path.is_dir() else lambda: path.unlink(missing_ok=True))()
    write(path, "a: two\n")
    assert file.entries() == {"a": "two"}


def test_a_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens.yaml"
    write(path, "a: one\n")
    age(path)
    file = secret_file(path)
    monkeypatch.setattr(os, "open", None)
    assert [file.entries() for _ in range(3)] == [{"a": "one"}] * 3


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_a_file_that_everybody_may_read_is_warned_of_once(
    tmp_path: Path, mode: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.yaml"
    write(path, "a: one\n", mode=mode)
    file = secret_file(path)
    file.entries()
    file.entries()
    assert len(caplog.records) == warnings
    assert all("make it 0600" in record.getMessage() for record in caplog.records)


BAD_FILES = [
    (b"hunter2", "not lines of `name: secret`; write them so"),
    (b"- hunter2", "not lines of `name: secret`; write them so"),
    (b"a: one\nb: [hunter2", "line 2, column 12: not lines of `name: secret`"),
    (b"a: one\na: hunter2", "line 2: a is there twice, first on line 1; remove one"),
    (b"a: !hunter2 b", "line 1, column 4: not lines of `name: secret`"),
    (b"a: *hunter2", "not lines of `name: secret`"),
    (b"a: {hunter2: b}", "line 1: a: the secret is read as several values, not as a text; write one text"),
    (b"a: 12345678", "a: the secret is read as a number, not as a text; put it in quotes"),
    (b"a: 1e3", "a: the secret is read as a number, not as a text; put it in quotes"),
    (b"a: true", "a: the secret is read as true or false, not as a text; put it in quotes"),
    (b"a:", "a: has no secret; write one behind the colon"),
    (b'a: ""', "a: the secret is empty, too long or has spaces"),
    (b'a: "hunter2 hunter2"', "a: the secret is empty, too long or has spaces"),
    (b"a: " + b"h" * 1025, "a: the secret is empty, too long or has spaces"),
    ("a: hünter2".encode(), "a: the secret is empty, too long or has spaces"),
    (b'"hunter2 hunter2": a', "line 1: the name is no word"),
    (
        b"a: b\n5: hunter2",
        "line 2: the name is read as a number or the like, not as a text; put it in quotes",
    ),
    (b"", "holds no entry; write `name: secret`, or remove the setting"),
    (b"# nothing\n---\n", "holds no entry"),
    (b"{}", "holds no entry"),
    (b"a: \xff", "not UTF-8; save the file as UTF-8"),
    (b"a: b\n#" + b" " * 1024 * 1024, "larger than 1048576 bytes"),
    (b"".join(b"a%d: b\n" % number for number in range(1001)), "more than 1000 entries"),
]


@pytest.mark.parametrize(("content", "problem"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_file_is_reported_without_what_is_in_it(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parsed(content, read_keys, place="api.access_keys_file: keys.yaml")
    (line,) = caught.value.problems
    assert line.startswith("api.access_keys_file: keys.yaml: ")
    assert problem in line
    assert "hunter2" not in line


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][\w.-]{0,20}", fullmatch=True).filter(str.isascii),
        st.text("abc-_/+=!", min_size=1),
        min_size=1,
    )
)
def test_whatever_a_file_holds_is_read_back(secrets: dict[str, str]) -> None:
    assert parsed(json.dumps(secrets).encode(), read_keys, place="file") == secrets


@given(st.binary(max_size=60))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    found: Mapping[str, str] = {}
    with suppress(InvalidConfiguration):
        found = parsed(content, read_keys, place="file")
    assert all(found.values())


def test_every_entry_that_is_wrong_is_reported_by_its_line() -> None:
    content = b"AKIAIOSFODNN7EXAMPLE: 5\n# a comment\nb: one\n6: two\nb: 'x y'\n\nc:\n'd e': f\nb: two\n"
    with pytest.raises(InvalidConfiguration) as caught:
        parsed(content, read_keys, place="file")
    told = [each.removeprefix("file: ").partition(";")[0] for each in caught.value.problems]
    assert told == [
        "line 1: [hidden]: the secret is read as a number, not as a text",
        "line 4: the name is read as a number or the like, not as a text",
        "line 5: b: the secret is empty, too long or has spaces",
        "line 7: c: has no secret",
        "line 8: the name is no word of at most 128 letters, digits and -_.@:+=,/",
        "line 5: b is there twice, first on line 3",
        "line 9: b is there twice, first on line 3",
    ]


def test_a_bad_file_stops_the_start_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    write(path, "AKID: 5\n")
    settings = validated(
        plugin, {"listen": "127.0.0.1:0", "api": {"access_keys_file": str(path)}}, place="control http"
    )

    async def run() -> None:
        async with plugin.open(settings, Environment(clock=LoopClock())):  # type: ignore[arg-type]  # its own model
            pass

    with pytest.raises(
        InvalidConfiguration,
        match=r"api\.access_keys_file: .*AKID: the secret is read as a number, not as a text; put it in quotes",
    ):
        asyncio.run(run())


@pytest.mark.parametrize("place", ["fifo", "/dev/zero", "/dev/null"])
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    if place == "fifo":
        os.mkfifo(path)
    with pytest.raises(InvalidConfiguration, match="is no regular file; write the path of a file"):
        secret_file(path)
    [error] = file_errors(path, read_keys, field="api.access_keys_file")
    assert (error.wrong, error.remedy) == ("is no regular file", "write the path of a file")


def test_a_token_is_known_only_as_a_whole() -> None:
    tokens = {"a": Token("one", Role.VIEW), "b": Token("two", Role.ADMIN)}
    assert [token_name(each, tokens) for each in ("one", "two", "on", "", "onetwo", "a")] == [
        "a",
        "b",
        *[None] * 4,
    ]
    assert token_name("", {}) is None
