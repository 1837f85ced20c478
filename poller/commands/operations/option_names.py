"""Owns how a command says what a daemon refuses or reports: with its own options where the daemon names members of a request."""

import re

_TRUE = re.compile(r'\b(?:write|add) "(\w+)": true')
_SHARDS = re.compile(r"\bname (it|some of them) in shards\b")
_FIELD = re.compile(r"(\w+): ")
_OPTIONS = {
    "shard": "--shard",
    "shards": "--shard",
    "lane": "--lane",
    "group": "--group",
    "records": "--records",
    "send": "--discard",
    "discard": "--discard",
    "skip": "--skip",
    "to": "--to",
    "from": "--from",
    "function": "--function",
    "filter": "--filter",
    "records_per_s": "--records-per-s",
    "messages_per_s": "--messages-per-s",
    "on_failure": "--on-failure",
    "limit": "--limit",
    "reason": "--reason",
}
"""Members of a request, and the options that set them. `send` is set by its opposite."""


def in_options(text: str) -> str:
    """The text as the user of a command reads it. What names no member stays as it is."""
    found = _TRUE.sub(lambda match: f"add --{match[1].replace('_', '-')}", text)
    found = _SHARDS.sub(r"name \1 with --shard", found).replace(
        "sequence number in quotes", "sequence number"
    )
    field = _FIELD.match(found)
    if field is None:
        return found
    if field[1] == "action":
        return found[field.end() :]
    option = _OPTIONS.get(field[1])
    return found if option is None else f"{option}: {found[field.end() :]}"
