"""URLs of directories: which are taken, which directory they name, and what is said of others."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.field_types import directory_of, directory_url


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_a_quoted_path_is_taken_and_names_its_directory(path: str) -> None:
    url = f"file:///{quote(path)}"
    assert directory_of(directory_url(url)) == Path(f"/{path}")


@pytest.mark.parametrize(
    "url",
    ["", "/var/spool", "file:notices", "file://host/notices", "file:///a%00b", "http:///a", "file://[/a"],
)
def test_what_names_no_directory_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ValueError, match="names no directory; write file:///path/of/directory"):
        directory_url(url)
