"""Owns the search for credentials in texts, by their name, their place or their form. They are replaced by `HIDDEN`.

Each step goes through the text once, so its time is linear in the length of the text, whatever the text is. What is matched behind a
name is hidden, and not searched again, or it is of limited length, or it is a single word, which `Words` reads once for all names in it.
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
from poller.domain.untrusted.credential_names import HINTS, WHOLE_LINE, WORD, harmless, is_name
from poller.domain.untrusted.credential_urls import hide_path as hide_path
from poller.domain.untrusted.credential_urls import hide_users
from poller.domain.untrusted.plain_words import Words

CHARS_MIN = 6
"""A shorter text cannot contain a credential together with its name or prefix."""

_REST = re.compile(r"(?:\w|-(?!>))*+")
_BETWEEN = re.compile(
    r"""(?:\[\w{0,32}(?=\]))?\\*+["']?\]?(?:\s{0,8},?\s{0,8}\\{0,8}["']?value\\{0,8}["']?)?\s*+"""
    r"""(?:=>|(?P<compared>[=!]=)|:=|(?<=\s)->(?=\s)|[:=>]|%(?:25){0,4}3[ad]|(?<=\\)u003[ad])\s*+"""
    r"""(?:\\\s++|(?:\||>(?!\s*+[0-9]))[+-]?[0-9]?\s++)?(?:value\s++)?""",
    re.IGNORECASE,
)
"""Between a name and its value. Name and value may also be two members of one object, and the value may be a block of YAML."""
_TEXT = r"""[bru]{0,2}(?:\\++"[^"\r\n]*+"?|\\++'[^'\r\n]*+'?|"(?:[^"\\\r\n]|\\.)*+["\\]?|'(?:[^'\\\r\n]|\\.)*+['\\]?)"""
_TYPED = r"""\{\s*+\\*+["'](?:[SB]|value|string|secret|plain|text|[#_]text)\\*+["']\s*+(?:=>|:)\s*+"""
_QUOTED = re.compile(_TEXT, re.IGNORECASE)
_MARKED = re.compile(
    rf"""{_TEXT}|{_TYPED}{_TEXT}\s*+\}}?"""
    rf"""|\[\s*+(?=\\*+["'][^\s"']{{0,64}}[0-9]){_TEXT}(?:\s*+,\s*+{_TEXT})*+\s*+\]?"""
    r"""|\{(?![\w.]*+\})[^{}\s"'\[\]]{1,128}\}"""
    r"""|[\[(](?=[^\s\])]{0,64}[0-9])(?=[^\s\])]{0,64}[A-Za-z])[^\s"'\[\](){}]{1,128}[\])]""",
    re.IGNORECASE,
)
"""A value that is not a single word: a text, an object that only says the type of one (as of DynamoDB), a list of texts with digits,
a text in braces, or a word of letters and digits in brackets. Whoever matches this hides what is found, or else it would be read again."""
_SHOWN = ("[hidden]", "[hidden…")
_LINE = re.compile(r"[^\r\n]*+")
_FOLDED = re.compile(
    r"[^\r\n]*+(?:\r?\n[ \t]++(?=[\w.$-]{1,64}=|[\w+/.~=-]{8,512}+[ \t]*+(?:[\r\n]|\Z))[^\r\n]*+)*+"
)
"""A line, and those behind it that are a cookie or a long word."""
_LETTERS = re.compile(r"[A-Za-z]++")
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
_FOR = re.compile(r"""\s++for\s++["']?[^\s"':=]{1,64}["']?[ \t]{0,8}[:=][ \t]{0,8}""", re.IGNORECASE)
"""As in a prompt: the password for somebody."""
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

_KEY_BEGIN = re.compile(r"-{4,5}\s?BEGIN\s[A-Z0-9\s]{0,40}PRIVATE\sKEY[A-Z\s]{0,10}-{4,5}")
_KEY_END = re.compile(r"-{4,5}[^\S\r\n]?END[^\S\r\n](?:[A-Z0-9]|[^\S\r\n]){0,60}(?:-{4,5})?")


def hide(text: str) -> str:
    """`text` with each credential replaced by `HIDDEN`. If the end of a private key is missing, everything behind its begin is hidden."""
    if len(text) < CHARS_MIN:
        return text
    if "PRIVATE" in text:
        text = _hide_keys(text)
    text = hide_users(text)
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
    return _hide_named(text) if _has(text.lower(), HINTS) else text


def _has(text: str, parts: tuple[str, ...]) -> bool:
    for part in parts:  # noqa: SIM110 - a generator takes several times as long, and nearly every text is looked at
        if part in text:
            return True
    return False


def gives_credential(name: str) -> bool:
    """Whether the value of this name is a credential."""
    text = f"{name}=1"
    return hide(text) != text


def _hide_keys(text: str) -> str:
    kept, place = [], 0
    while (begin := _KEY_BEGIN.search(text, place)) is not None:
        kept += [text[place : begin.start()], HIDDEN]
        end = _KEY_END.search(text, begin.end())
        place = len(text) if end is None else end.end()
    return "".join([*kept, text[place:]])


def _hide_named(text: str) -> str:
    """Hides the values of names like `password`."""
    kept, place, look = [], 0, 0
    words = Words(text)
    while (word := WORD.search(text, look)) is not None:
        look = word.end()
        if not is_name(text, word):
            continue
        rest = _REST.match(text, look)
        assert rest is not None, "the pattern takes nothing too"
        look = rest.end()
        if _before(text, word, _CLOSING) or harmless(text, word.end(), look):
            continue
        begin, end = _value(words, word, look)
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


def _value(words: Words, word: re.Match[str], look: int) -> tuple[int, int]:
    """Begin and end of the value of a name whose match ends at `look`. They are equal if there is no value to hide."""
    text = words.text
    if between := _BETWEEN.match(text, look) or _between_parts(text, word, look):
        return between.end(), _behind_value(words, word, between)
    if between := _SAID.match(text, look):
        begin = between.end()
        if quoted := _QUOTED.match(text, begin):
            return begin, quoted.end()
        return begin, words.end(begin) if words.drawn(begin) else begin
    if (between := _PAIR_MIDDLE.match(text, look)) and _before(text, word, _PAIR_BEGIN):
        value = _QUOTED.match(text, between.end())
        drawn = value and _HAS_DIGIT.match(value[0]) and _PAIR_END.match(text, value.end())
        return between.end(), value.end() if value and drawn else between.end()
    if (between := _BEHIND_OPTION.match(text, look)) and _is_option(text, word.start()):
        begin = between.end()
        if _SENTENCE.match(text, begin) or text.startswith(_SHOWN, begin):
            return begin, begin
        value = _MARKED.match(text, begin)
        return begin, value.end() if value else words.end(begin)
    if (between := _FOR.match(text, look)) and words.drawn(between.end()):
        return between.end(), words.end(between.end())
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


def _behind_value(words: Words, word: re.Match[str], between: re.Match[str]) -> int:
    """The end of the value behind `between`, which stands behind a name; its begin if it must not be hidden."""
    text, begin = words.text, between.end()
    if text.startswith(_SHOWN, begin):
        return begin
    if value := _MARKED.match(text, begin):
        return value.end()
    end = words.end(begin)
    if end == begin:
        return begin
    if between.groupdict().get("compared"):
        return end if words.drawn(begin) else begin
    colon = between[0].rstrip().endswith(":")
    if WHOLE_LINE.search(word[0]):
        return begin if colon and _SENTENCE.match(text, begin) else _behind_line(text, begin, folded=colon)
    drawn = "\n" not in between[0] and words.drawn(begin)
    if (text[end - 1] == ":" and not drawn) or (colon and not _given(words, word, begin)):
        # This is the next name, or a sentence.
        return begin
    return end


def _behind_line(text: str, begin: int, *, folded: bool) -> int:
    """The end of a line. The value of a header may be folded: it goes on in the next lines, which begin with a blank."""
    line = (_FOLDED if folded else _LINE).match(text, begin)
    assert line is not None, "the pattern takes nothing too"
    return line.end()


def _given(words: Words, word: re.Match[str], begin: int) -> bool:
    """Whether the text behind "name:" is a value, and not a sentence about the name or the next part of an ARN."""
    text, end = words.text, words.end(begin)
    if text[begin] == ":" or (word.start() and text[word.start() - 1] == ":"):
        return False
    letters = _LETTERS.match(text, begin)
    return not (letters and letters.end() == end and _MORE_WORDS.match(text, end))


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
