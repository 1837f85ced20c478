"""Owns what is cut from text before it is logged: credentials by their shape, control characters, length."""

import re

TEXT_CHARS_MAX = 500
HIDDEN = "[hidden]"

_NAMES = r"[\w-]*(?:secret|token|password|passwd|signature|credential|api[_-]?key|access[_-]?key)[\w-]*"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), HIDDEN),
    (
        re.compile(r"(?i)\b(authorization|proxy-authorization|cookie|set-cookie)(['\"]?\s*[:=]\s*)[^\r\n]+"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?i)({_NAMES})=(?:'[^']*'?|\"[^\"]*\"?|[^&\s,;'\")]+)"), rf"\1={HIDDEN}"),
    (re.compile(rf"(?i)(['\"]{_NAMES}['\"]\s*:\s*)(?:'[^']*'?|\"[^\"]*\"?)"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@"), rf"\1{HIDDEN}@"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redacted(text: str) -> str:
    """`text` without what looks like a credential."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def clean(text: str, *, chars_max: int = TEXT_CHARS_MAX) -> str:
    """`text` on one line, without credentials, cut to `chars_max` characters.

    It is cut before the patterns run too, so that their cost has a bound; what a cut may have left of a credential
    at the end is behind the final cut.
    """
    text = _CONTROL.sub(" ", redacted(text[: 2 * chars_max]))
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
