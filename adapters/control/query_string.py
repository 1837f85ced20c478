"""Owns how a request's target is taken apart: as it was sent, so that what is read is what was signed."""

from urllib.parse import unquote_to_bytes


def parts(target: str) -> tuple[str, str]:
    """Path and query of a target, both still encoded."""
    path, _, query = target.partition("?")
    return path, query


def raw_pairs(query: str) -> list[tuple[bytes, bytes]]:
    """Names and values in their order, decoded to bytes; a plus sign is a plus sign, as in signatures."""
    return [
        (unquote_to_bytes(_bytes(name)), unquote_to_bytes(_bytes(value)))
        for name, _, value in (each.partition("=") for each in query.split("&") if each)
    ]


def pairs(target: str) -> list[tuple[str, str]]:
    """Names and values of the query as text; bytes that are not UTF-8 become replacement characters."""
    found = raw_pairs(parts(target)[1])
    return [(name.decode(errors="replace"), value.decode(errors="replace")) for name, value in found]


def values(target: str, name: str) -> list[str]:
    """All values of one query parameter."""
    return [value for key, value in pairs(target) if key == name]


def first(target: str, name: str) -> str | None:
    """The first value of one query parameter; None when it is not there."""
    return next(iter(values(target, name)), None)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
