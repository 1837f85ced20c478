"""Owns how users and passwords before a host are hidden: in URLs, in URLs with escaped characters, and before a host alone.

Each search goes on behind what it has read, or reads a limited number of characters, so that all is linear in the text.
"""

import re

from poller.domain.untrusted.credential_forms import HIDDEN

_BEGIN = re.compile(r":?(?:\\{0,8}/){2}")
_AUTHORITY = re.compile(r"""[^\s/?#"'<>]*+""")
_HOST = re.compile(r"[^:@]*+(?::[0-9]{0,5})?\\*+\Z|\[[0-9A-Fa-f:.%]*+\]?(?::[0-9]{0,5})?\\*+\Z")
_PASSWORD_CHARS_MAX = 512
"""How far the `@` is searched behind a character that must be escaped in a user or password, such as a slash."""
_ODD_CHARS_MAX = 64
"""The same behind a blank or a quote, which a sentence also has."""
_SPACE = re.compile(r"""[\s"'<>]""")
_USER_AND = re.compile(r"[\w.%+~-]{0,64}:(?![{$<%\[]|\d{1,5}(?:[^\w@]|\Z))")
"""A user and the begin of a password that is no port and no placeholder."""
_BEHIND_AT = re.compile(r"[\w\[]")
_ESCAPED = re.compile(
    r"""(%(?:25){0,4}3A(?:%(?:25){0,4}2F){2})(?:[^\s%&"'<>]|%(?!(?:25){0,4}(?:2F|3F|23|40)))++(?=%(?:25){0,4}40)""",
    re.IGNORECASE,
)
"""User and password of a URL that stands in another URL."""
_HOST_ALONE = r"(?:[A-Za-z][\w.-]{0,253}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%]{2,64}\])"
_ALONE = re.compile(
    r"(?<![\w.%+/@:\\-])(?!(?:mailto|e?mail|user|from|to|cc|bcc|by|sip|sips|xmpp|acct|npm|pkg|file|git|workspace):)"
    r"""([A-Za-z_][\w.%+-]{0,63}:)(?!\[hidden)[^\s:@/"'<>()]{1,128}(?=@(?!sha\d)"""
    rf"""{_HOST_ALONE}(?::[0-9]{{2,5}}(?![0-9A-Za-z])|/))""",
    re.IGNORECASE,
)
"""User and password before a host with a port or a path. A mail address has neither."""


def hide_users(text: str) -> str:
    """`text` with user and password before a host replaced by `HIDDEN`."""
    if "//" in text or "/\\" in text:
        text = _in_urls(text)
    if "%40" in text or "2540" in text:
        text = _ESCAPED.sub(rf"\1{HIDDEN}", text)
    if "@" in text:
        text = _ALONE.sub(rf"\1{HIDDEN}", text)
    return text


def hide_path(url: str) -> str:
    """An http or https URL with its path and query hidden, because they may be secret. Any other text is unchanged."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return url
    authority = _AUTHORITY.match(rest)
    assert authority is not None, "the pattern takes nothing too"
    place = authority[0].rpartition("@")[2]
    return f"{scheme}://{place}" if rest[authority.end() :] in ("", "/") else f"{scheme}://{place}/{HIDDEN}"


def _in_urls(text: str) -> str:
    """Hides user and password of URLs. They may contain invalid characters, and the text may be cut before the host."""
    kept, place = [], 0
    while (slashes := _BEGIN.search(text, place)) is not None:
        begin = slashes.end()
        authority = _AUTHORITY.match(text, begin)
        assert authority is not None, "the pattern takes nothing too"
        kept.append(text[place:begin])
        place = begin
        if slashes[0][0] == ":":
            place = _behind_user(text, begin, authority.end())
        elif _USER_AND.match(text, begin, authority.end()):
            place = max(begin, text.rfind("@", begin, authority.end()))
        if place > begin:
            kept.append(HIDDEN)
    return "".join([*kept, text[place:]])


def _behind_user(text: str, begin: int, end: int) -> int:
    """The end of the user and password that start at `begin`; `begin` if there are none. The host ends at `end`."""
    last = text.rfind("@", begin, end)
    if last >= 0:
        return last
    if text.find(":", begin, end) < 0 or _HOST.match(text, begin, end):
        return begin
    at = text.find("@", end, end + _PASSWORD_CHARS_MAX)
    if at >= 0 and not _SPACE.search(text, end, at):
        return at
    if 0 <= at < end + _ODD_CHARS_MAX and _USER_AND.match(text, begin) and _BEHIND_AT.match(text, at + 1):
        return begin if text.find("//", end, at) >= 0 else at
    # If the text was cut in the middle of a password, there is no host.
    return end if end == len(text) and text.endswith("…") else begin
