"""The files of the page: which are served, with which headers, and that no path of a request reaches the file system."""

import re
from pathlib import Path

import pytest

from adapters.control.live.page_files import POLICY, PREFIX, page_files, version
from adapters.control.settings import ApiSettings
from tests.adapters.control.serving import Running, Setting, serving

PLACES = [file.path for file in page_files()]
SCRIPT = next(path for path in PLACES if path.endswith(".js"))
OFF = ApiSettings(page=False)
NOT_SERVED = [
    "/page",
    "/page/",
    "/page/index.html",
    "/page/nothing.js",
    "/page/../server.py",
    "/page/..%2fserver.py",
    "/page/%2e%2e/server.py",
    SCRIPT.replace("/page/", "/page//"),
    f"{SCRIPT}/..",
    SCRIPT.upper(),
    f"{SCRIPT}%00",
    f"{SCRIPT}/",
    "/page/__init__.py",
    "/index.html",
    "//",
]


def test_the_start_and_its_files_are_there() -> None:
    assert "/" in PLACES
    assert {Path(path).suffix for path in PLACES} >= {".js", ".css"}


def test_every_file_is_served_with_its_type_and_the_policy() -> None:
    async def use(run: Running) -> None:
        for file in page_files():
            status, body, headers = await run.exact("GET", file.path)
            assert (status, body) == (200, file.body), file.path
            assert headers["Content-Type"] == file.content_type
            assert headers["Content-Security-Policy"] == POLICY
            assert headers["Cache-Control"] == "no-cache"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["ETag"] == f'"{file.etag}"'

    serving(use)


def test_a_head_has_no_body() -> None:
    status, body, headers = serving(lambda run: run.exact("HEAD", "/"))
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(page_files_at("/"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [('"{}"', 304), ('W/"{}"', 304), ('"other", "{}"', 304), ("*", 304), ('"other"', 200), ("", 200)],
)
def test_a_browser_that_has_the_file_does_not_get_it_again(given: str, expected: int) -> None:
    etag = next(file.etag for file in page_files() if file.path == "/")

    async def use(run: Running) -> None:
        status, body, headers = await run.exact("GET", "/", headers={"If-None-Match": given.format(etag)})
        assert status == expected
        assert body == (page_files_at("/") if expected == 200 else b"")
        assert (headers["ETag"], headers["Content-Security-Policy"]) == (f'"{etag}"', POLICY)

    serving(use)


@pytest.mark.parametrize("path", NOT_SERVED)
def test_no_other_path_is_served(path: str) -> None:
    async def use(run: Running) -> bytes:
        return await run.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())

    assert serving(use).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_file_can_only_be_read(method: str) -> None:
    status, _, headers = serving(lambda run: run.ask(method, "/"))
    assert (status, headers["Allow"]) == (405, "GET,HEAD")


def test_without_the_page_none_of_it_is_there() -> None:
    async def use(run: Running) -> set[int]:
        return {(await run.get(path))[0] for path in PLACES}

    assert serving(use, Setting(api=OFF)) == {404}


def test_only_files_of_known_types_are_served(tmp_path: Path) -> None:
    folder = tmp_path / "views" / "deep"
    folder.mkdir(parents=True)
    for name in (
        "index.html",
        "other.html",
        "a.js",
        "a.js.map",
        "readme.md",
        "a.py",
        "icon.svg",
        "views/deep/b.css",
    ):
        (tmp_path / name).write_text(name)
    found = {file.path: file.body for file in page_files(tmp_path)}
    assert found == {
        "/": b"index.html",
        "/page/a.js": b"a.js",
        "/page/icon.svg": b"icon.svg",
        "/page/views/deep/b.css": b"views/deep/b.css",
    }


def test_a_version_is_that_of_all_files(tmp_path: Path) -> None:
    found = [version(page_files(tmp_path))]
    for name, text in (("index.html", "1"), ("a.js", "1"), ("a.js", "2"), ("index.html", "2"), ("b.js", "2")):
        (tmp_path / name).write_text(text)
        found.append(version(page_files(tmp_path)))
    assert found[0] == ""
    assert len(set(found)) == len(found)
    assert version(page_files(tmp_path)) == found[-1]


def test_the_page_names_only_files_that_there_are_and_nothing_elsewhere() -> None:
    """A file that asks another server, or one that is missing, would be refused by the policy or be a 404."""
    for file in page_files():
        text = file.body.decode()
        named = re.findall(r"""(?:src|href)=["']([^"']+)["']""", text) if file.path == "/" else []
        assert {each for each in named if each.startswith(PREFIX)} <= set(PLACES), file.path
        assert not re.search(r"""(?:src|href|url\(|import|from)\W{0,3}https?:""", text), file.path
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", text) or file.path != "/"


def page_files_at(path: str) -> bytes:
    return next(file.body for file in page_files() if file.path == path)
