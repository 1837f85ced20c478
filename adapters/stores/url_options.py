"""Owns the options in a store's URL: `scheme://place?option=value` means the same as a key `option` beside `url`."""

from typing import Any
from urllib.parse import parse_qsl


def spread(values: Any) -> Any:
    """Moves the query of `url` into the settings; raises ValueError for an option that is given twice.

    Settings that are no table with a text as `url` are returned unchanged, for the model to refuse.
    """
    if not isinstance(values, dict) or not isinstance(values.get("url"), str):
        return values
    # The library's urlsplit refuses several hosts of which one is an IPv6 address.
    rest, hashed, fragment = values["url"].partition("#")
    place, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    given = dict(values) | {"url": place + hashed + fragment}
    for name, value in options:
        if name in given:
            raise ValueError(f"option {name!r} is given twice; keep one")
        given[name] = value
    return given
