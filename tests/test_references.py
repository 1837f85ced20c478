"""References resolve: citations and links lead to a heading, paths to a file, names of metrics to a metric.

A citation is `PAGE#HEADING`: the name of a page of docs without its suffix, and the anchor of a heading on it. It may stand in any
comment, docstring or text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FOLDERS = ("poller", "adapters", "tests", "benchmarks", "deploy", "examples", "docs")
TEXT_SUFFIXES = frozenset({".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".tpl", ".json", ".mk", ".sh"})
NOT_OURS = frozenset({"node_modules", "data", "__pycache__"})

_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_CITATION = re.compile(r"(?<![\w/.#&-])([a-z][a-z0-9_-]*)#([a-z][a-z0-9-]*)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PAGE_PATH = re.compile(r"(?<![\w/.:-])docs/[\w/.-]*\w")
_PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w/.-]+|\w+/[\w/-]+\.py)`")
_METRIC = re.compile(r"(?<![\w:])poller_[a-z]\w*")
_RECORD = re.compile(r"\w+:poller_\w+:\w+")
_ELSEWHERE = re.compile(r"\bspec(ification)? (section )?\d|\bDESIGN\b|[a-z`] \(\d{1,2}\.\d{1,2}\)")
"""Citations of papers that are not in the repository."""

NO_CITATIONS = frozenset({"leases#damaged"})
"""Texts of the form of a citation that are something else."""
NO_METRICS = frozenset({"poller_example", "poller_secret"})
"""Names of the form of a metric that are something else."""
NOT_IN_A_ROW = ("_bucket", "_sum", "_count")
"""What a histogram's series have behind the name of the metric."""

SURE = frozenset({"measured", "seen", "documented", "reported", "assumed"})
"""How sure a rule of AWS is; the page explains the words."""


def files() -> list[Path]:
    """All texts of the repository but this file."""
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [path for path in [*ROOT.glob("*.md"), *below] if path.suffix in TEXT_SUFFIXES]
    return sorted(path for path in found if not NOT_OURS & set(path.parts) and path != Path(__file__))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def markdown() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def pages() -> dict[str, Path]:
    """The pages of docs by the names that citations have."""
    found = {path.stem: path for path in DOCS.rglob("*.md")}
    assert len(found) == len(list(DOCS.rglob("*.md"))), "two pages have one name"
    return found


def anchors(text: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return [slug(heading) for heading in _HEADING.findall(_FENCE.sub("", text))]


def slug(heading: str) -> str:
    """Links and code in a heading count with their text."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def unresolved(text: str, named: Mapping[str, Path]) -> Iterator[str]:
    """The citations in a text that lead nowhere."""
    for name, anchor in _CITATION.findall(text):
        citation = f"{name}#{anchor}"
        page = named.get(name)
        if citation not in NO_CITATIONS and (page is None or anchor not in anchors(text_of(page))):
            yield citation


def dead_links(text: str, path: Path) -> Iterator[str]:
    """The relative links of a page without a file or heading."""
    for link in _LINK.findall(_CODE.sub("", _FENCE.sub("", text))):
        place, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (path.parent / place).resolve()
        if not target.exists() or (anchor and anchor not in anchors(text_of(target) if place else text)):
            yield link


def dead_paths(text: str) -> Iterator[str]:
    """The paths of pages, and on pages those of code, that lead to nothing. A decision may be cited by its number."""
    for place in _PAGE_PATH.findall(text):
        if not (ROOT / place).exists() and not any(ROOT.glob(f"{place}-*.md")):
            yield place


def dead_code_paths(text: str) -> Iterator[str]:
    """The paths of code on a page that lead to nothing. A module of the engine may be named without its first folder."""
    for place in _PATH.findall(text):
        if not any((base / place).exists() for base in (ROOT, ROOT / "poller")):
            yield place


def unknown_metrics(text: str, metrics: Iterable[str], records: Iterable[str]) -> set[str]:
    """The metrics and recorded series that a text names and nobody exports."""
    known = set(metrics) | {name + end for name in metrics for end in NOT_IN_A_ROW}
    named = set(_METRIC.findall(_RECORD.sub("", text)))
    return (named - known - NO_METRICS) | (set(_RECORD.findall(text)) - set(records))


def metrics() -> set[str]:
    """All metrics: the table in docs, which has exactly the metrics of the code (test_prometheus_observer)."""
    return set(re.findall(r"^\| `(poller_\w+)`", text_of(pages()["observability"]), re.MULTILINE))


def records() -> set[str]:
    return set(re.findall(r"^ *-? *record: (\S+)", text_of(ROOT / "deploy/prometheus/recording.yaml"), re.M))


def rules_of_aws() -> list[tuple[str, str]]:
    """The heading and text of each rule that the page about AWS has."""
    parts = re.split(r"^#{2,3} +", text_of(pages()["aws-behaviour"]), flags=re.MULTILINE)[1:]
    found = [(heading, body) for heading, _, body in (part.partition("\n") for part in parts)]
    return [(heading, body) for heading, body in found if "Known: " in body]


def test_every_citation_leads_to_a_heading() -> None:
    named = pages()
    wrong = {str(path.relative_to(ROOT)): list(unresolved(text_of(path), named)) for path in files()}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_no_text_cites_a_paper_that_is_not_here() -> None:
    wrong = {
        str(path.relative_to(ROOT)): [each[0] for each in _ELSEWHERE.finditer(text_of(path))]
        for path in files()
    }
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("path", markdown(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    text = text_of(path)
    assert [*dead_links(text, path)] == []
    assert len(set(anchors(text))) == len(anchors(text)) or path.name == "CHANGELOG.md", "a heading twice"


def test_every_path_of_a_page_leads_to_it() -> None:
    wrong = {str(path.relative_to(ROOT)): [*dead_paths(text_of(path))] for path in files()}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_every_path_of_code_on_a_page_leads_to_it() -> None:
    wrong = {str(path.relative_to(ROOT)): [*dead_code_paths(text_of(path))] for path in markdown()}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_every_metric_that_is_named_exists() -> None:
    named = [path for path in files() if path.suffix == ".md" or "deploy" in path.relative_to(ROOT).parts[:1]]
    wrong = {
        str(path.relative_to(ROOT)): unknown_metrics(text_of(path), metrics(), records()) for path in named
    }
    assert {path: found for path, found in wrong.items() if found} == {}


def test_every_rule_of_aws_says_how_sure_it_is_and_where_the_code_is() -> None:
    found = rules_of_aws()
    assert len(found) >= 60
    for heading, body in found:
        known = re.findall(r"^Known: (.*)\. Code: ((?:`[\w/.-]+\.py`(?:, )?)+)\.$", body, re.MULTILINE)
        assert len(known) == 1, heading
        words = set(re.findall(r"[a-z]+", known[0][0]))
        assert words & SURE or known[0][0] == "as the table says", heading


def test_every_rule_of_aws_is_cited_where_the_code_relies_on_it() -> None:
    code = [path for path in files() if path.suffix == ".py" and path.parts[len(ROOT.parts)] != "tests"]
    cited = {
        anchor
        for path in code
        for page, anchor in _CITATION.findall(text_of(path))
        if page == "aws-behaviour"
    }
    assert [heading for heading, _ in rules_of_aws() if slug(heading) not in cited] == []


def test_a_citation_of_no_page_or_no_heading_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The page\n\n```\n# no heading\n```\n\n## A `rule` of [AWS](x.md)\n")
    text = (
        "as (page#a-rule-of-aws), page#the-page, page#no-heading and pages#the-page; see page.md#x, a/page#x"
    )
    assert list(unresolved(text, {"page": page})) == ["page#no-heading", "pages#the-page"]


def test_a_link_to_no_file_or_no_heading_is_seen(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n")
    text = "# Here\n[a](other.md) [b](other.md#other) [c](#here) [d](other.md#no) [e](no.md) [f](#no) `[g](no.md)`"
    assert list(dead_links(text, tmp_path / "page.md")) == ["other.md#no", "no.md", "#no"]


def test_a_path_to_no_file_is_seen() -> None:
    assert list(dead_paths("docs/no-page.md, docs/decisions/0008, docs/decisions/9999. docs/internals")) == [
        "docs/no-page.md",
        "docs/decisions/9999",
    ]
    text = "`poller/ports.py`, `runtime/daemon.py`, `poller/no_module.py`, `rules/no_module.py` and `a/b.md`"
    assert list(dead_code_paths(text)) == ["poller/no_module.py", "rules/no_module.py"]


def test_a_metric_that_nobody_exports_is_seen() -> None:
    text = "poller_shards, poller_time_seconds_bucket, poller_lost_total, a:poller_x:rate5m, b:poller_y:sum"
    assert unknown_metrics(text, ["poller_shards", "poller_time_seconds"], ["a:poller_x:rate5m"]) == {
        "poller_lost_total",
        "b:poller_y:sum",
    }


def test_a_citation_of_a_paper_elsewhere_is_seen() -> None:
    text = "as it is (spec 7.1), by spec section 2; DESIGN, section 3; the words are theirs (9.4)."
    assert len(_ELSEWHERE.findall(text)) == 4
    assert not _ELSEWHERE.search("spec = _spec(name, 2); DESIGNED; now=at(9.4); module_from_spec(2)")
