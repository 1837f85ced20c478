"""The files of the page: each parses, each import is there, and nothing in them could run what comes from outside."""

import json
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.emulators import NPM, installed, node

PAGE = Path(__file__).parents[4] / "adapters" / "control" / "page"
FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
MODULES = [path for path in FILES if path.suffix == ".js"]
LINES_MAX = 400
FILES_MAX = 15
WIDTH_MAX = 140
NODE_S_MAX = 30
DRIVER = NPM.parent / "browser.mjs"
UNITS = Path(__file__).parent / "units"
CONFIG = NPM.parent / "prettier.json"
FORBIDDEN = (
    r"\b(inner|outer)HTML\b",
    r"\binsertAdjacentHTML\b",
    r"\bsetHTML\w*\b",
    r"\bdocument\s*\.\s*write(ln)?\b",
    r"\bcreateContextualFragment\b",
    r"\bDOMParser\b",
    r"\beval\b",
    r"\bnew\s+Function\b",
    r"\bset(Timeout|Interval)\s*\(\s*['\"`]",
    r"\bimport\s*\(",
    r"\bsrcdoc\b",
    r"\bjavascript:",
    r"\blocalStorage\b",
    r"\bdocument\s*\.\s*cookie\b",
    r"\bon[a-z]+\s*=\s*['\"]",
    r"['\"`]on(?!line\b)[a-z]+['\"`]",
    r"\.style\b|['\"`]style['\"`]",
    r"\bTODO\b|\bdebugger\b|\bconsole\s*\.",
)
"""What puts markup or code into the page, keeps the token for longer, or is left over."""
NAMESPACES = {"http://www.w3.org/2000/svg"}
LINK = """
const failed = [];
globalThis.document = { getElementById: () => null };
for (const file of JSON.parse(process.argv[1])) {
  try { await import(file); } catch (error) { if (!(error instanceof TypeError)) failed.push(`${file}: ${error.message}`); }
}
// A channel to other tabs would keep the process running.
process.stdout.write(JSON.stringify(failed), () => process.exit());
"""


def name(path: Path) -> str:
    return str(path.relative_to(PAGE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_parses(path: Path) -> None:
    done = subprocess.run(
        [node()[0], "--check", "--input-type=module"],
        input=path.read_bytes(),
        capture_output=True,
        check=False,
        timeout=NODE_S_MAX,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_every_name_that_is_imported_is_there() -> None:
    command = [
        node()[0],
        "--no-warnings",
        "--input-type=module",
        "-e",
        LINK,
        json.dumps(list(map(str, MODULES))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NODE_S_MAX)
    assert json.loads(done.stdout) == []


def test_every_module_is_used() -> None:
    named = {name(PAGE / "main.js")}
    for path in MODULES:
        for found in re.findall(r"from '(\.[^']+)';", path.read_text()):
            named.add(name((path.parent / found).resolve()))
    assert named == set(map(name, MODULES))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_could_run_what_comes_from_outside(path: Path) -> None:
    text = path.read_text()
    assert [pattern for pattern in FORBIDDEN if re.search(pattern, text)] == []
    assert set(re.findall(r"\bhttps?://[^\s'\"`)]+", text)) <= NAMESPACES
    assert not re.search(r"['\"(]//", text)


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_each_forbidden_pattern_finds_something(pattern: str) -> None:
    samples = (
        "node.innerHTML = text", "it.insertAdjacentHTML('beforeend', x)", "node.setHTMLUnsafe(x)", "document.write(x)",
        "range.createContextualFragment(x)", "new DOMParser()", "eval(x)", "new Function(x)", "setTimeout('x', 1)",
        "import(x)", "frame.srcdoc = x", "javascript:x", "localStorage.x", "document.cookie", '<b onclick="x">',
        "setAttribute('onclick', x)", "node.style.color", "debugger",
    )  # fmt: skip
    assert any(re.search(pattern, sample) for sample in samples)


class Document(HTMLParser):
    """What of a document could be code or come from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.inline: list[str] = []
        self.addresses: list[str] = []
        self.ids: Counter[str] = Counter()
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_script = tag in {"script", "style"}
        if tag == "script":
            self.scripts.append(given.get("src") or "")
        self.inline += [key for key in given if key.startswith("on") or key == "style"]
        self.addresses += [value or "" for key, value in attrs if key in {"src", "href"}]
        self.ids.update([given["id"] or ""] if "id" in given else [])

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(data)


def test_the_document_has_no_code_of_its_own_and_loads_only_what_is_there() -> None:
    document = Document()
    document.feed((PAGE / "index.html").read_text())
    assert document.scripts == ["/page/main.js"]
    assert document.inline == []
    for address in document.addresses:
        path = PAGE / address.removeprefix("/page/")
        assert address.startswith("#") or path.is_file(), address
    assert [each for each, count in document.ids.items() if count > 1] == []


def test_files_stay_small_enough_to_find_ones_way_in() -> None:
    folders = Counter(path.parent for path in FILES)
    assert max(folders.values()) <= FILES_MAX
    for path in FILES:
        lines = path.read_text().splitlines()
        assert len(lines) <= LINES_MAX, name(path)
        assert max(map(len, lines)) <= WIDTH_MAX, name(path)


def test_the_files_are_formatted() -> None:
    """By prettier, as ruff formats the modules of Python: `make format-page` does it."""
    prettier = installed("prettier") / "bin" / "prettier.cjs"
    command = [
        node()[0],
        str(prettier),
        "--check",
        "--config",
        str(CONFIG),
        str(PAGE),
        str(DRIVER),
        str(UNITS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=NODE_S_MAX)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_opens_with_what_it_owns(path: Path) -> None:
    assert re.match(r"/\*\*(\n \*)? Owns ", path.read_text()), name(path)
