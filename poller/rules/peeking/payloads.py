"""Owns how a payload is decoded for people: unpacked if it is gzip, as text if it is UTF-8, else as base64. It is cut to a size.

Nothing raises here, whatever the bytes are. The work and the result are bounded: a gzip bomb is unpacked to the size that is shown
and no further, and a text is parsed only to see whether it is JSON, and only if it is short.
"""

import zlib
from base64 import b64encode
from codecs import getincrementaldecoder
from dataclasses import dataclass

import orjson

from poller.domain.peeking.answers import PayloadForm, ShownPayload

SHOWN_BYTES_MAX = 1024 * 1024
"""Bytes of all payloads in one answer."""
VALUE_BYTES_MAX = 256 * 1024
"""Bytes of one payload. A longer one is cut, and is not parsed to see whether it is JSON."""
GZIP_PARTS_MAX = 100
"""Parts of one packed payload that are unpacked."""
_GZIP = b"\x1f\x8b\x08"
_GZIP_WINDOW_BITS = 31
_Decoder = getincrementaldecoder("utf-8")


@dataclass(slots=True)
class PayloadRoom:
    """The bytes that the payloads of one answer may still take."""

    left: int = SHOWN_BYTES_MAX

    def show(self, raw: bytes) -> ShownPayload:
        """A payload, decoded and cut to what is left."""
        shown = decoded(raw, bytes_max=min(self.left, VALUE_BYTES_MAX))
        self.left -= len(shown.text.encode())
        return shown


def decoded(raw: bytes, *, bytes_max: int) -> ShownPayload:
    """The payload in at most `bytes_max` bytes of text."""
    unpacked = _unpacked(raw, bytes_max) if raw.startswith(_GZIP) else None
    if unpacked is None:
        return _shown(raw, len(raw), bytes_max, gzip=False)
    content, complete = unpacked
    return _shown(content, len(content) if complete else None, bytes_max, gzip=True)


def _shown(content: bytes, full_bytes: int | None, bytes_max: int, *, gzip: bool) -> ShownPayload:
    """`full_bytes` is None if `content` is only the beginning."""
    head = content[:bytes_max]
    cut = full_bytes is None or full_bytes > len(head)
    try:
        # The last character may be cut in two.
        text = _Decoder().decode(head, final=not cut)
    except UnicodeDecodeError:
        whole = bytes_max // 4 * 3
        base64 = b64encode(content[:whole]).decode()
        cut = full_bytes is None or full_bytes > whole
        return ShownPayload(form=PayloadForm.BASE64, text=base64, full_bytes=full_bytes, cut=cut, gzip=gzip)
    form = PayloadForm.JSON if not cut and _is_json(text) else PayloadForm.TEXT
    return ShownPayload(form=form, text=text, full_bytes=full_bytes, cut=cut, gzip=gzip)


def _unpacked(raw: bytes, bytes_max: int) -> tuple[bytes, bool] | None:
    """The beginning of what is packed in `raw`, and whether it is all; None if it is not gzip.

    gzip may have several parts, one after the other, and zeros behind the last one.
    """
    content, rest = b"", raw
    for _ in range(GZIP_PARTS_MAX):
        unpacking = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            # One byte more than there is room for shows whether there is more. With a limit of 0 all would be unpacked.
            content += unpacking.decompress(rest, bytes_max + 1 - len(content))
        except zlib.error:
            return None if rest is raw else (content, False)
        rest = unpacking.unused_data
        if not unpacking.eof or not rest.startswith(_GZIP) or len(content) > bytes_max:
            return content, unpacking.eof and rest.count(0) == len(rest)
    return content, False


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
