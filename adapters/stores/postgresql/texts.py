"""Owns which texts PostgreSQL can keep as they are: those that UTF-8 can encode, without null characters."""

from poller.domain.errors import ServiceUnavailable

SHOWN_CHARS_MAX = 100


def storable(text: str) -> str:
    """Returns the text; raises ServiceUnavailable if the server cannot keep it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ServiceUnavailable(
            f"{_shown(text)} cannot be stored: it has half of a surrogate pair"
        ) from None
    if "\0" in text:
        raise ServiceUnavailable(f"{_shown(text)} cannot be stored: it has a null character")
    return text


def _shown(text: str) -> str:
    return ascii(text[:SHOWN_CHARS_MAX])
