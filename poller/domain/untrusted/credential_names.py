"""Owns the names that credentials go by in texts: tables of words, and the pattern that finds any of them.

Names that only mention credentials, such as "token_count" or "password_file", are told apart behind the word (see `harmless`).
"""

import re

NAMES = (
    "secret",
    "token",
    "password",
    "passwort",
    "passwd",
    "passwt",
    "pass phrase",
    "signature",
    "credential",
    "authorization",
    "cookie",
    "session-id",
)
"""Words that are found wherever they stand in a name. For a dash there may be an underscore or nothing, and for a blank these too."""
JOINED = ("pass", "pwd", "pw")
"""Short words that are found where no letter or digit stands beside them, or behind one of `OWNERS`, as in "dbpass" but not in "bypass"
and "OLDPWD", or with a capital letter behind a small one."""
ALONE = ("sig", "_auth", "jwt")
"""Short words that are found only where no letter or digit stands beside them."""
OWNERS = (
    "account",
    "admin",
    "api",
    "app",
    "auth",
    "bind",
    "cert",
    "client",
    "db",
    "email",
    "ftp",
    "http",
    "imap",
    "jdbc",
    "key",
    "keystore",
    "ldap",
    "login",
    "mail",
    "mongo",
    "mq",
    "my",
    "mysql",
    "oracle",
    "pg",
    "postgres",
    "proxy",
    "rabbit",
    "redis",
    "root",
    "server",
    "service",
    "sftp",
    "smtp",
    "sql",
    "ssh",
    "store",
    "sudo",
    "svc",
    "truststore",
    "user",
    "usr",
    "vpn",
    "wifi",
)
"""What the words of `JOINED` may be joined to."""
KEYS = ("api", "access", "private", "account", "shared", "encryption", "signing")
"""What a key is for that is a credential, and its id too."""
KEYS_NOT_IDS = (
    "admin",
    "aes",
    "auth",
    "cipher",
    "consumer",
    "decryption",
    "deploy",
    "functions",
    "hmac",
    "ingestion",
    "instrumentation",
    "integration",
    "licence",
    "license",
    "master",
    "subscription",
    "symmetric",
    "webhook",
)
"""What a key is for that is a credential. Its id, such as that of a master key of KMS, is none."""


def _any(words: tuple[str, ...]) -> str:
    return "|".join(word.replace("-", "[_-]?").replace(" ", "[ _-]?") for word in words)


WORD = re.compile(
    rf"{_any(NAMES)}|(?P<joined>{_any(JOINED)})(?![a-z0-9])|(?<![a-z0-9])(?:{_any(ALONE)})(?![a-z0-9])"
    rf"|(?:{_any(KEYS)})[_-]?key|(?:{_any(KEYS_NOT_IDS)})[_-]?key(?![_-]?id)",
    re.IGNORECASE,
)
"""A name, or one of `JOINED`, which is a name if `is_name` says so."""
_OWNER = re.compile(rf"(?<![a-z0-9])(?:{_any(OWNERS)})?\Z", re.IGNORECASE)
_OWNER_CHARS_MAX = max(map(len, OWNERS))
_CAMEL = re.compile(r"[a-z0-9](?<!by)(?<!com)\Z")
"""What a capital letter stands behind if it begins a word in camelCase."""
HINTS = (
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
"""Every text in which `WORD` matches contains one of these. They are searched first, because that is cheap."""
WHOLE_LINE = re.compile(r"(?:authorization|cookie)\Z", re.IGNORECASE)
"""Headers whose value goes on to the end of the line."""
_HARMLESS = re.compile(
    r"(?:arn|count|length|size|file|path|dir|name|type|url|uri|endpoint|version|manager|izer|ized|izing"
    r"|limit|max|min|ttl|expires?|expiry|expiration|expired|invalid|missing|exception|error|policy|used|method)\Z",
    re.IGNORECASE,
)
_HARMLESS_CHARS = 12


def is_name(text: str, word: re.Match[str]) -> bool:
    """Whether what `WORD` found in a text is a name, and not the end of a word such as "bypass"."""
    if word.lastgroup is None:
        return True
    begin = word.start()
    if word[0][0] == "P" and word[0][1:].islower() and _CAMEL.search(text, max(0, begin - 1), begin):
        return True
    return _OWNER.search(text, max(0, begin - _OWNER_CHARS_MAX), begin) is not None


def harmless(text: str, begin: int, end: int) -> bool:
    """Whether a name is about a credential and not of one. It has the rest of the name, from the end of the word to the end of the name."""
    return _HARMLESS.search(text, max(begin, end - _HARMLESS_CHARS), end) is not None
