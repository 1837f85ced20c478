"""Owns where commands that ask a daemon find their token: `--token-file`, else the variable POLLER_TOKEN.

There is no option for the token itself, since other users of the machine can see the command line of a process.
"""

import os
import re
from pathlib import Path

from poller.domain.errors import InvalidConfiguration

VARIABLE = "POLLER_TOKEN"
OPTION = "--token-file"
FILE_BYTES_MAX = 4096
TOKEN_CHARS_MAX = 1024
GIVE_ONE = (
    f"set {VARIABLE}, or give {OPTION} FILE, with a token of the daemon's api.tokens_file (docs/use/api.md)"
)

_TOKEN = re.compile(rf"[!-~]{{1,{TOKEN_CHARS_MAX}}}")


def bearer_token(file: Path | None) -> str:
    """Returns the token to send, empty if there is none.

    Raises InvalidConfiguration if the file or the variable holds none. The text says what to do, and does not show what is there.
    """
    if file is None:
        text, place = os.environ.get(VARIABLE, ""), f"environment {VARIABLE}"
        if not text:
            return ""
    else:
        text, place = _content(file), f"{OPTION}: {str(file)!r}"
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        wrong = f"{place}: is no token; write the token alone, 1 to {TOKEN_CHARS_MAX} ASCII characters without spaces"
        raise InvalidConfiguration([wrong])
    return token


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no path"
        wrong = f"{OPTION}: {str(file)!r}: {reason}; name a file that holds the token alone"
        raise InvalidConfiguration([wrong]) from None
    return content.decode("utf-8-sig", "replace")
