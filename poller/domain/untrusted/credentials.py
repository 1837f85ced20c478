"""Owns the search for credentials in texts, by their name, their place or their form. They are replaced by `HIDDEN`.

Each step goes through the text once and reads no part twice, so its time is linear in the length of the text, whatever the text is.
Error texts must stay readable. So a name that only mentions credentials ("token_count=3", "password: is too short") hides nothing.
"""

import re

from poller.domain.untrusted.credential_forms import (
    FORMS,
    KEY_CHARS_MIN,
    KEYS,
    TOKEN_CHARS_MIN,
    hide_drawn,
    hide_tokens,
)
from poller.domain.untrusted.credential_forms import HIDDEN as HIDDEN

CHARS_MIN = 6
"""A shorter text cannot contain a credential together with its name or prefix."""

_WORD = re.compile(
    r"secret|token|passw(?:or)?[dt]|pass[ _]?phrase|(?<![a-z0-9])(?:pass|pwd|pw|sig|_auth|jwt)(?![a-z0-9])|signature|credential"
    r"|(?:api|access|private|account|shared|encryption|signing)[_-]?key"
    r"|authorization|cookie|session[_-]?id",
    re.IGNORECASE,
)
_HINTS = (
    "secret",
    "token",
    "pass",
    "pw",
    "sig",
    "_auth",
    "jwt",
    "credential",
    "key",
    "authorization",
    "cookie",
    "session",
)
"""Every text in which `_WORD` matches contains one of these. They are searched first, because that is cheap."""
_REST = re.compile(r"(?:\w|-(?!>))*+")
_HARMLESS = re.compile(
    r"(?:arn|count|length|size|file|path|dir|name|type|url|uri|endpoint|version|manager|izer|ized|izing"
    r"|limit|max|min|ttl|expires?|expiry|expiration|expired|invalid|missing|exception|error|policy|used|method)\Z",
    re.IGNORECASE,
)
_HARMLESS_CHARS = 12
_WHOLE_LINE = re.compile(r"(?:authorization|cookie)\Z", re.IGNORECASE)
"""Headers whose value goes on to the end of the line."""
_BETWEEN = re.compile(
    r"""(?:\[\w{0,32}(?=\]))?\\*+["']?\]?(?:\s{0,8},?\s{0,8}\\{0,8}["']?value\\{0,8}["']?)?\s*+"""
    r"""(?:=>|(?P<compared>[=!]=)|:=|(?<=\s)->(?=\s)|[:=>]|%3[ad])\s*+(?:\\\s++|(?:\||>(?!\s*+[0-9]))[+-]?[0-9]?\s++)?(?:value\s++)?""",
    re.IGNORECASE,
)
"""Between a name and its value. Name and value may also be two members of one object, and the value may be a block of YAML."""
_TEXT = r"""[bru]{0,2}(?:\\++"[^"\r\n]*+"?|\\++'[^'\r\n]*+'?|"(?:[^"\\\r\n]|\\.)*+["\\]?|'(?:[^'\\\r\n]|\\.)*+['\\]?)"""
_TYPED = r"""\{\s*+\\*+["'](?:[SB]|value|string|secret|plain|text|[#_]text)\\*+["']\s*+(?:=>|:)\s*+"""
_VALUE = re.compile(
    rf"""(?P<hidden>\[hidden[\]…])|(?P<quoted>{_TEXT})|(?P<typed>{_TYPED}{_TEXT}\s*+\}}?)"""
    rf"""|(?P<listed>\[\s*+(?=\\*+["'][^\s"']{{0,64}}[0-9]){_TEXT}(?:\s*+,\s*+{_TEXT})*+\s*+\]?)"""
    r"""|(?P<braced>\{(?![\w.]*+\})[^{}\s"'\[\]]{1,128}\})|(?P<plain>[^\s&,;'"()<>{}\[\]]++)""",
    re.IGNORECASE,
)
"""A value: a text, an object that only says the type of one (as of DynamoDB), a list of texts with digits, a text in braces, or a word."""
_LINE = re.compile(r"[^\r\n]*+")
_LETTERS = re.compile(r"[A-Za-z]+\Z")
_MORE_WORDS = re.compile(r"[ \t]+[A-Za-z(]")
_SENTENCE = re.compile(
    r"(?:a|an|and|are|as|be|but|can|cannot|could|did|does|for|from|had|has|have|holds|if|in|is|its|longer|may|must|neither|no|not|of"
    r"|on|one|option|or|out|read|requires|set|should|shorter|than|that|the|this|to|too|unknown|was|were|when|which|will|with|without"
    r"|would)(?=[\s;,.]|\Z)",
    re.IGNORECASE,
)
"""A word that says something about a name and is not its value."""
_OPTION_CHARS_MAX = 64
_OPTION = re.compile(r"""(?<![^\s"'=,(\[])-{1,2}[\w-]*+\Z""")
_BEHIND_OPTION = re.compile(r"""["']?+,?+\s++(?![-|<>=:\]])["']?+""")
"""Separates an option and its value, on a command line or in a list of arguments."""
_SAID = re.compile(r"""["']?\s++(?:is|was|to|as):?\s++""", re.IGNORECASE)
_LETTERS_AND_DIGITS = re.compile(r"(?=[^0-9]*+[0-9])(?=[^A-Za-z]*+[A-Za-z])\S{6}")
_BEFORE_CHARS = 64
"""How far the text before a name is looked at."""
_CLOSING = re.compile(r"</[\w:.-]*+\Z")
_OPENING = re.compile(r"<[\w:.-]*+\Z")
_ATTRIBUTES = re.compile(r"""(?:\s++[\w:.-]{1,64}=(?:"[^"\r\n]*+"|'[^'\r\n]*+')){1,8}\s*+>""")
_PART_BEGIN = re.compile(r"""name=\\?"[\w.\[-]*+\Z""")
_PART_HEAD = re.compile(r"""\]?\\?"(?:[ \t]{0,1}(?:\r?\n){1,2}|[ \t]{2,4})""")
"""Between the name and the value of a field of a multipart form, whose empty line may be gone or on one line with the others."""
_PAIR_BEGIN = re.compile(r"""[(\[]b?["'][\w-]*+\Z""")
_PAIR_MIDDLE = re.compile(r"""["'],\s*+""")
_PAIR_END = re.compile(r"\s*+[)\]]")
_TAIL_CHARS = 256
_HAS_DIGIT = re.compile(r"[^\s0-9]{1,64}[0-9]")
_BLANKS = " \t\\"

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,60}(?:-----)?")
_AUTHORITY = re.compile(r"""[^\s/?#"'<>]*+""")
_HOST = re.compile(r"[^:@]*+(?::[0-9]{0,5})?\Z|\[[0-9A-Fa-f:.%]*+\]?(?::[0-9]{0,5})?\Z")
_PASSWORD_CHARS_MAX = 512
"""How far the `@` is searched behind a character that must be escaped in a user or password, such as a slash."""
_SPACE = re.compile(r"""[\s"'<>]""")


def hide(text: str) -> str:
    """`text` with each credential replaced by `HIDDEN`. If the end of a private key is missing, everything behind its begin is hidden."""
    if len(text) < CHARS_MIN:
        return text
    if "-----BEGIN" in text:
        text = _hide_keys(text)
    if "://" in text:
        text = _hide_users(text)
    for needed, form, instead in FORMS:
        if _has(text, needed):
            text = form.sub(instead, text)
    if len(text) >= TOKEN_CHARS_MIN:
        longest = max(map(len, text.split()), default=0)
        if longest >= TOKEN_CHARS_MIN:
            text = hide_tokens(text)
        if longest >= KEY_CHARS_MIN:
            for form in KEYS:
                text = form.sub(hide_drawn, text)
    return _hide_named(text) if _has(text.lower(), _HINTS) else text


def _has(text: str, parts: tuple[str, ...]) -> bool:
    for part in parts:  # noqa: SIM110 - a generator takes several times as long, and nearly every text is looked at
        if part in text:
            return True
    return False


def gives_credential(name: str) -> bool:
    """Whether the value of this name is a credential."""
    text = f"{name}=1"
    return hide(text) != text


def hide_path(url: str) -> str:
    """An http or https URL with its path and query hidden, because they may be secret. Any other text is unchanged."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return url
    authority = _AUTHORITY.match(rest)
    assert authority is not None, "the pattern takes nothing too"
    place = authority[0].rpartition("@")[2]
    return f"{scheme}://{place}" if rest[authority.end() :] in ("", "/") else f"{scheme}://{place}/{HIDDEN}"


def _hide_keys(text: str) -> str:
    kept, place = [], 0
    while (begin := _KEY_BEGIN.search(text, place)) is not None:
        kept += [text[place : begin.start()], HIDDEN]
        end = _KEY_END.search(text, begin.end())
        place = len(text) if end is None else end.end()
    return "".join([*kept, text[place:]])


def _hide_users(text: str) -> str:
    """Hides user and password of URLs. They may contain invalid characters, and the text may be cut before the host."""
    kept, place = [], 0
    while (at := text.find("://", place)) >= 0:
        begin = at + 3
        authority = _AUTHORITY.match(text, begin)
        assert authority is not None, "the pattern takes nothing too"
        kept.append(text[place:begin])
        place = _behind_user(text, begin, authority.end())
        if place > begin:
            kept.append(HIDDEN)
    return "".join([*kept, text[place:]])


def _behind_user(text: str, begin: int, end: int) -> int:
    """The end of the user and password that start at `begin`; `begin` if there are none. The host ends at `end`."""
    last = text.rfind("@", begin, end)
    if last >= 0:
        return last
    if ":" not in text[begin:end] or _HOST.match(text, begin, end):
        return begin
    at = text.find("@", end, end + _PASSWORD_CHARS_MAX)
    if at >= 0 and not _SPACE.search(text, end, at):
        return at
    # If the text was cut in the middle of a password, there is no host.
    return end if end == len(text) and text.endswith("…") else begin


def _hide_named(text: str) -> str:
    """Hides the values of names like `password`."""
    kept, place, look = [], 0, 0
    while (word := _WORD.search(text, look)) is not None:
        rest = _REST.match(text, word.end())
        assert rest is not None, "the pattern takes nothing too"
        look = rest.end()
        if _before(text, word, _CLOSING) or _HARMLESS.search(
            text, max(word.end(), look - _HARMLESS_CHARS), look
        ):
            continue
        begin, end = _value(text, word, look)
        if end > begin:
            kept += [text[place:begin], _within(text, begin, end)]
            place = look = end
    return "".join([*kept, text[place:]])


def awaits_value(line: str) -> bool:
    """Whether a line ends with a name like `password` and the sign that its value follows."""
    tail = line[-_TAIL_CHARS:].rstrip(_BLANKS)
    if not tail.endswith(("=", ":")):
        return False
    return hide(f"{tail} x1").endswith(HIDDEN)


def _value(text: str, word: re.Match[str], look: int) -> tuple[int, int]:
    """Begin and end of the value of a name whose match ends at `look`. They are equal if there is no value to hide."""
    if between := _BETWEEN.match(text, look) or _between_parts(text, word, look):
        return between.end(), _behind_value(text, word, between, between.end())
    if between := _SAID.match(text, look):
        value = _VALUE.match(text, between.end())
        given = value and (value["quoted"] or (value["plain"] and _LETTERS_AND_DIGITS.match(value["plain"])))
        return between.end(), value.end() if value and given else between.end()
    if (between := _PAIR_MIDDLE.match(text, look)) and _before(text, word, _PAIR_BEGIN):
        value = _VALUE.match(text, between.end())
        drawn = (
            value and value["quoted"] and _HAS_DIGIT.match(value[0]) and _PAIR_END.match(text, value.end())
        )
        return between.end(), value.end() if value and drawn else between.end()
    if (between := _BEHIND_OPTION.match(text, look)) and _is_option(text, word.start()):
        value = _VALUE.match(text, between.end())
        told = value is None or value["hidden"] or _SENTENCE.match(text, between.end())
        return between.end(), between.end() if value is None or told else value.end()
    return look, look


def _between_parts(text: str, word: re.Match[str], look: int) -> re.Match[str] | None:
    """The text between name and value where these are parts of XML with attributes, or of a multipart form."""
    if (between := _ATTRIBUTES.match(text, look)) and _before(text, word, _OPENING):
        return between
    between = _PART_HEAD.match(text, look)
    return between if between and _before(text, word, _PART_BEGIN) else None


def _before(text: str, word: re.Match[str], form: re.Pattern[str]) -> bool:
    """Whether the text before a name ends in this form."""
    return form.search(text, max(0, word.start() - _BEFORE_CHARS), word.start()) is not None


def _is_option(text: str, begin: int) -> bool:
    """Whether the name before `begin` is an option of a command."""
    return _OPTION.search(text, max(0, begin - _OPTION_CHARS_MAX), begin) is not None


def _behind_value(text: str, word: re.Match[str], between: re.Match[str], begin: int) -> int:
    """The end of the value that starts at `begin`; `begin` if it must not be hidden."""
    value = _VALUE.match(text, begin)
    if value is None or value["hidden"]:
        return begin
    if value["plain"] is None:
        return value.end()
    if between.groupdict().get("compared"):
        return value.end() if _LETTERS_AND_DIGITS.match(value[0]) else begin
    colon = between[0].rstrip().endswith(":")
    if _WHOLE_LINE.search(word[0]):
        if colon and _SENTENCE.match(text, begin):
            return begin
        line = _LINE.match(text, begin)
        assert line is not None, "the pattern takes nothing too"
        return line.end()
    drawn = _LETTERS_AND_DIGITS.match(value[0]) and "\n" not in between[0]
    if (value[0].endswith(":") and not drawn) or (colon and not _given(text, word, value)):
        # This is the next name, or a sentence.
        return begin
    return value.end()


def _given(text: str, word: re.Match[str], value: re.Match[str]) -> bool:
    """Whether the text behind "name:" is a value, and not a sentence about the name or the next part of an ARN."""
    if value[0].startswith(":") or (word.start() and text[word.start() - 1] == ":"):
        return False
    return not (_LETTERS.match(value[0]) and _MORE_WORDS.match(text, value.end()))


def _within(text: str, begin: int, end: int) -> str:
    """The replacement of a value. Its quotes are kept, so that JSON stays valid."""
    value = text[begin:end]
    stripped = value.lstrip("bru\\")
    quote = stripped[:1]
    if quote not in ('"', "'") or value[:1] not in ('"', "'", "\\", "b", "r", "u"):
        return HIDDEN
    opening = value[: len(value) - len(stripped) + 1]
    closing = opening.lstrip("bru") if value.endswith(quote) and len(stripped) > 1 else ""
    return f"{opening}{HIDDEN}{closing}"
