"""Puts what depends on where the project is hosted into a distribution: its URLs, and the links of its description.

POLLER_PROJECT_URL has the address of the repository's first page when a distribution is built for others (`make wheel`). Without it there
are no URLs, and links stay relative. A wheel that is built from a source distribution has those of the source distribution.
"""

import os
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "POLLER_PROJECT_URL"
PAGES = {
    "Source": "",
    "Documentation": "/blob/main/docs/README.md",
    "Changelog": "/blob/main/CHANGELOG.md",
    "Issues": "/issues",
}
"""The URLs of a distribution, each as a path below the repository's first page."""
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s]+)\)")


class ProjectUrls(MetadataHookInterface):
    """Hatchling's hook for the fields that pyproject.toml calls dynamic."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets `urls` and `readme`."""
        root = Path(self.root)
        home = os.environ.get(VARIABLE, "").rstrip("/") or _of_source_distribution(root / "PKG-INFO")
        text = (root / "README.md").read_text(encoding="utf-8")
        if home:
            parts = urlsplit(home)
            if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"{VARIABLE}: value {home!r}: not the https address of a repository's page")
            text = absolute(text, home)
        metadata["urls"] = {name: home + path for name, path in PAGES.items()} if home else {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, home: str) -> str:
    """Returns a page with its relative links below the repository's first page."""
    return _LINK.sub(lambda link: f"]({home}/blob/main/{link[1]})", text)


def _of_source_distribution(file: Path) -> str:
    if not file.exists():
        return ""
    urls = HeaderParser().parsestr(file.read_text(encoding="utf-8")).get_all("Project-URL") or []
    return next(
        (url.strip() for name, _, url in (each.partition(",") for each in urls) if name == "Source"), ""
    )
