"""Owns the parsing of a request's target, in the form in which it was sent: the signature covers exactly that form."""

from urllib.parse import unquote_to_bytes


def parts(target: str) -> tuple[str, str]:
    """Returns the path and the query of a target, both still encoded."""
    path, _, query = target.partition("?")
    return path, query


def raw_pairs(query: str) -> list[tuple[bytes, bytes]]:
    """Returns names and values in their order, decoded to bytes. A plus sign stays one, as AWS's signatures require."""
    return [
        (unquote_to_bytes(_bytes(name)), unquote_to_bytes(_bytes(value)))
        for name, _, value in (each.partition("=") for each in query.split("&") if each)
    ]


def pairs(target: str) -> list[tuple[str, str]]:
    """Returns names and values of the query as text. Bytes that are not UTF-8 become replacement characters."""
    found = raw_pairs(parts(target)[1])
    return [(name.decode(errors="replace"), value.decode(errors="replace")) for name, value in found]


def values(target: str, name: str) -> list[str]:
    """Returns all values of one query parameter."""
    return [value for key, value in pairs(target) if key == name]


def first(target: str, name: str) -> str | None:
    """Returns the first value of one query parameter, or None if it is absent."""
    return next(iter(values(target, name)), None)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
