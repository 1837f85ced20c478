"""Owns the search for credentials in texts, by their name, their place or their form. They are replaced by `HIDDEN`.

Each step goes through the text once and reads no part twice, so its time is linear in the length of the text, whatever the text is.
Error texts must stay readable. So a name that only mentions credentials ("token_count=3", "password: is too short") hides nothing.
"""

import re
from collections.abc import Callable

HIDDEN = "[hidden]"
CHARS_MIN = 6
"""A shorter text cannot contain a credential together with its name or prefix."""

_WORD = re.compile(
    r"secret|token|passw(?:or)?d|passphrase|(?<![a-z0-9])(?:pass|pwd|sig|_auth|jwt)(?![a-z0-9])|signature|credential"
    r"|(?:api|access|private|account|shared|encryption|signing)[_-]?key"
    r"|authorization|cookie|session[_-]?id",
    re.IGNORECASE,
)
_HINTS = (
    "secret",
    "token",
    "pass",
    "pwd",
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
_REST = re.compile(r"[\w-]*+")
_HARMLESS = re.compile(
    r"(?:arn|count|length|size|file|path|dir|name|type|url|uri|endpoint|version|manager|izer|ized|izing"
    r"|limit|max|min|ttl|expires?|expiry|expiration|expired|invalid|missing|exception|error|policy|used|method)\Z",
    re.IGNORECASE,
)
_HARMLESS_CHARS = 12
_WHOLE_LINE = re.compile(r"(?:authorization|cookie)\Z", re.IGNORECASE)
"""Headers whose value goes on to the end of the line."""
_BETWEEN = re.compile(r"""\\*+["']?\s*+(?:=>|[:=>]|%3[ad])\s*+(?:\\\s++)?(?:value\s++)?""", re.IGNORECASE)
_TEXT = r"""[bru]{0,2}(?:\\++"[^"\r\n]*+"?|\\++'[^'\r\n]*+'?|"(?:[^"\\\r\n]|\\.)*+["\\]?|'(?:[^'\\\r\n]|\\.)*+['\\]?)"""
_VALUE = re.compile(rf"""(?P<hidden>\[hidden[\]…])|(?P<quoted>{_TEXT})|(?P<plain>[^\s&,;'"()<>{{}}\[\]]++)""")
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
_TAIL_CHARS = 256
_BLANKS = " \t\\"

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,60}(?:-----)?")
_AUTHORITY = re.compile(r"""[^\s/?#"'<>]*+""")
_HOST = re.compile(r"[^:@]*+(?::[0-9]{0,5})?\Z|\[[0-9A-Fa-f:.%]*+\]?(?::[0-9]{0,5})?\Z")
_PASSWORD_CHARS_MAX = 512
"""How far the `@` is searched behind a character that must be escaped in a user or password, such as a slash."""
_SPACE = re.compile(r"""[\s"'<>]""")


def _scheme(found: re.Match[str]) -> str:
    word = found[2]
    return found[0] if word.islower() and word.isalpha() else f"{found[1]}{HIDDEN}"


def _mixed(word: str) -> bool:
    """Whether a word has letters of both cases and digits, as random texts have."""
    return all(any(map(kind, word)) for kind in (str.isupper, str.islower, str.isdigit))


_DRAWN = re.compile(r"(?<=/)[A-Za-z0-9_]{20,}+(?![\w-]|[.:]\w)")
"""A part of a URL's path that may be random. Names that AWS's tools generate have dashes."""


def _without_drawn(found: re.Match[str]) -> str:
    url = found[0]
    return url if ".amazonaws.com" in url else _DRAWN.sub(_secret_key, url)


def _secret_key(found: re.Match[str]) -> str:
    return HIDDEN if _mixed(found[0]) else found[0]


_FORMS: tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        ("slack", "discord", "office", "telegram", "zapier"),
        re.compile(
            r"((?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/(?:v\d{1,3}/)?webhooks/"
            r"|office(?:365)?\.com/webhook\w{0,4}/|api\.telegram\.org/(?:file/)?bot|hooks\.zapier\.com/hooks/))"
            r"""[^\s"'<>]++""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("earer", "asic", "EARER", "ASIC"),
        re.compile(r"(\b(?:bearer|basic)\s++)([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE),
        _scheme,
    ),
    (("eyJ",), re.compile(r"(?<![A-Za-z0-9_-])eyJ[\w-]{8,}+(?:\.[\w-]*+){0,4}"), HIDDEN),
    (
        ("AKIA", "ASIA", "AROA", "AIDA", "ABIA", "ACCA"),
        re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,}+"),
        HIDDEN,
    ),
    (
        ("IQoJ", "FwoG", "FQoG", "AQoD"),
        re.compile(r"(?<![\w+/=-])(?:IQoJ|FwoG|FQoG|AQoD)[\w+/=%-]{20,}+"),
        HIDDEN,
    ),
    (
        ("xox", "gh", "github_pat_", "glpat-", "sk_", "sk-", "rk_", "AIza", "npm_", "SG."),
        re.compile(
            r"(?<![A-Za-z0-9_-])(?:xox[a-z]-[\w-]{8,}+|gh[opsur]_\w{20,}+|github_pat_\w{20,}+|glpat-[\w-]{16,}+"
            r"|[sr]k_(?:live|test)_\w{8,}+|sk-[\w-]{20,}+|AIza[\w-]{30,}+|npm_\w{30,}+|SG\.[\w-]{16,}+\.[\w-]{16,}+)"
        ),
        HIDDEN,
    ),
    (
        ("@tcp(", "@unix("),
        re.compile(r"""(?<![^\s"'=])([\w.-]{1,64}:)[^\s@"']{1,128}(?=@(?:tcp|unix)\()"""),
        rf"\1{HIDDEN}",
    ),
    (
        ("?", "&"),
        re.compile(
            r"([?&](?:code|key|auth|otp|pin|ticket|state|assertion|samlresponse|hash|hmac|sid|k)=)[^\s&#\"'<>\[\]]{4,}+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("mysql", "maria", "sshpass", "mongo", "sqlcmd"),
        re.compile(r"""(?<![^\s"'])(-[pP] ?+["']?+)(?!-)[^\s"']++"""),
        rf"\1{HIDDEN}",
    ),
    (("redis-cli",), re.compile(r"""(?<![^\s"'])(-a ?+["']?+)(?!-)[^\s"']++"""), rf"\1{HIDDEN}"),
    (
        ("curl", "wget", "http"),
        re.compile(r"""(?<![^\s"'])((?:-u|--user) ?+["']?+[\w.@-]{0,64}:)[^\s"']++"""),
        rf"\1{HIDDEN}",
    ),
    (("http",), re.compile(r"""https?://[^\s"'<>]++"""), _without_drawn),
)
"""Credentials that are recognized by their form: texts of which one must be present, the pattern, and the replacement."""
_KEYS = (
    re.compile(r"(?<![A-Za-z0-9/+=_-])[A-Za-z0-9+][A-Za-z0-9/+]{39}(?![A-Za-z0-9/+=_-])"),
    # A line of a private key whose first line is in another text.
    re.compile(r"^[ \t]*+[A-Za-z0-9+/]{60,76}={0,2}[ \t]*+$", re.MULTILINE),
)
"""Patterns of texts that are keys if they have letters of both cases and digits."""
_KEY_CHARS_MIN = 40


def hide(text: str) -> str:
    """`text` with each credential replaced by `HIDDEN`. If the end of a private key is missing, everything behind its begin is hidden."""
    if len(text) < CHARS_MIN:
        return text
    if "-----BEGIN" in text:
        text = _hide_keys(text)
    if "://" in text:
        text = _hide_users(text)
    for needed, form, instead in _FORMS:
        if _has(text, needed):
            text = form.sub(instead, text)
    if len(text) >= _KEY_CHARS_MIN and max(map(len, text.split()), default=0) >= _KEY_CHARS_MIN:
        for form in _KEYS:
            text = form.sub(_secret_key, text)
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
        if _HARMLESS.search(text, max(word.end(), look - _HARMLESS_CHARS), look):
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
    if between := _BETWEEN.match(text, look):
        return between.end(), _behind_value(text, word, between, between.end())
    if between := _SAID.match(text, look):
        value = _VALUE.match(text, between.end())
        given = value and (value["quoted"] or (value["plain"] and _LETTERS_AND_DIGITS.match(value["plain"])))
        return between.end(), value.end() if value and given else between.end()
    if (between := _BEHIND_OPTION.match(text, look)) and _is_option(text, word.start()):
        value = _VALUE.match(text, between.end())
        told = value is None or value["hidden"] or _SENTENCE.match(text, between.end())
        return between.end(), between.end() if value is None or told else value.end()
    return look, look


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
    if _WHOLE_LINE.search(word[0]):
        if ":" in between[0] and _SENTENCE.match(text, begin):
            return begin
        line = _LINE.match(text, begin)
        assert line is not None, "the pattern takes nothing too"
        return line.end()
    if value[0].endswith(":") or (":" in between[0] and not _given(text, word, value)):
        # This is the next name, or a sentence.
        return begin
    return value.end()


def _given(text: str, word: re.Match[str], value: re.Match[str]) -> bool:
    """Whether the text behind "name:" is a value, and not a sentence about the name or the next part of an ARN."""
    if word.start() and text[word.start() - 1] == ":":
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
