"""Owns signatures of requests by the Standard Webhooks specification: who sent them, when, and that nobody changed them.

The headers are `webhook-id`, `webhook-timestamp` and `webhook-signature`. Signed is `ID.TIMESTAMP.BODY`, by HMAC-SHA256. While a
secret is replaced by another, the file has both, and a request one signature by each: a receiver takes either.

An id stays the same when the same records are sent again, since receivers know by it what they have seen. It is made of the ids of
messages, because other members of a message (its receipt, the count of receives) are different each time. The event of a stream is
the same each time, and its id is made of the whole event.
"""

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import orjson

from adapters.changing_files import ChangingFiles, content_of, remedy_of
from adapters.private_files import exposure
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.records import Epoch
from poller.output.log_fields import EVENT
from poller.start_folder import from_start_folder

SECRETS_MAX = 2
"""The present secret, and the one before or after it."""
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
"""What the specification allows."""
FILE_BYTES_MAX = 4096
PREFIX = "whsec_"
FIELD = "signature.secret_file"
REFUSED = "secret_file_refused"
CHANGED = "secret_file_changed"
EXPOSED = "file_exposed"
"""Events of the log."""
KEPT = "what it held before stays in force"
_MAKE = 'write a line `whsec_` and 24 to 64 random bytes in base64, as of `echo "whsec_$(openssl rand -base64 32)"`'

log = logging.getLogger("poller.invokers")


class _Message(msgspec.Struct, frozen=True, rename={"message_id": "messageId"}):
    message_id: str = ""


class _Messages(msgspec.Struct, frozen=True, rename={"records": "Records"}):
    """The ids of messages in a plain event."""

    records: list[_Message]


_MESSAGES = msgspec.json.Decoder(_Messages)


class Signer:
    """Signs the requests to one function, by the secrets that its file has at the moment."""

    def __init__(self, function: str, path: str) -> None:
        """Reads the file; raises InvalidConfiguration with the remedy."""
        self._path = from_start_folder(path)
        self._place = f"functions.{function}.{FIELD}"
        self._named = path
        self._files = ChangingFiles([self._path], bytes_max=FILE_BYTES_MAX)
        self._files.changed()
        self._secrets = self._read()
        if wrong := exposure(self._path.stat()):
            log.warning("%s: %s", self._place, wrong, extra={EVENT: EXPOSED})

    def headers(self, webhook_id: str, body: bytes, *, now: Epoch) -> Mapping[str, str]:
        """The headers of a request with this body, which is sent now."""
        self._follow()
        moment = str(int(now))
        signed = b"%b.%b.%b" % (webhook_id.encode(), moment.encode(), body)
        signatures = [
            "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
            for secret in self._secrets
        ]
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": moment,
            "webhook-signature": " ".join(signatures),
        }

    def _follow(self) -> None:
        """Takes up what the file has by now. If it cannot be used, the log says so once."""
        if not self._files.changed():
            return
        try:
            self._secrets = self._read()
        except InvalidConfiguration as error:
            log.error("%s; %s", " | ".join(error.problems), KEPT, extra={EVENT: REFUSED})
        else:
            log.info("%s: read again", self._place, extra={EVENT: CHANGED})

    def _read(self) -> Sequence[bytes]:
        secrets, found = _secrets_in(self._path)
        if found:
            # The path stands behind: a word behind one like `orders.secret` would be hidden as a secret.
            raise InvalidConfiguration(
                [f"{self._place}: {each.wrong} ({self._named!r}); {each.remedy}" for each in found]
            )
        return secrets


def secret_errors(path: str) -> list[FieldError]:
    """Returns what is wrong with a file of secrets, without showing any text of it."""
    return _secrets_in(from_start_folder(path))[1]


def webhook_id_of(payload: bytes, *, function_arn: str) -> str:
    """Returns an id for a plain event, the same for the same records, in letters, digits and underscores."""
    digest = hashlib.sha256(function_arn.encode("utf-8", "surrogatepass"))
    ids = _message_ids(payload)
    digest.update(orjson.dumps(ids) if ids else payload)
    return f"msg_{digest.hexdigest()[:40]}"


def _message_ids(payload: bytes) -> list[str]:
    """The ids of all messages; empty if the event has records of another kind."""
    try:
        ids = [each.message_id for each in _MESSAGES.decode(payload).records]
    except (msgspec.MsgspecError, RecursionError):
        return []
    return ids if all(ids) else []


def _secrets_in(path: Path) -> tuple[list[bytes], list[FieldError]]:
    try:
        content, _ = content_of(path, bytes_max=FILE_BYTES_MAX)
    except OSError as error:
        return [], [FieldError(FIELD, f"{error.strerror}", remedy_of(error), here=True)]
    except ValueError:
        return [], [FieldError(FIELD, "is no path", "write the path of a file")]
    if len(content) > FILE_BYTES_MAX:
        return [], [FieldError(FIELD, f"has more than {FILE_BYTES_MAX} bytes", _MAKE)]
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    given = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not 1 <= len(given) <= SECRETS_MAX:
        wrong = f"has {len(given)} secrets, and must have 1 or {SECRETS_MAX}"
        return [], [
            FieldError(FIELD, wrong, _MAKE if not given else "remove those that nobody checks any more")
        ]
    secrets = [(number, _secret(line)) for number, line in given]
    wrong_lines = [
        FieldError(FIELD, f"line {number} is no secret", _MAKE) for number, each in secrets if not each
    ]
    return [each for _, each in secrets if each], wrong_lines


def _secret(line: str) -> bytes | None:
    """The bytes of a secret; None if the line is none."""
    if not line.startswith(PREFIX):
        return None
    try:
        found = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if SECRET_BYTES_MIN <= len(found) <= SECRET_BYTES_MAX else None
