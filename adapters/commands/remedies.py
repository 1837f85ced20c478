"""Owns the remedies for the errors of commands that use Lambda's API, of a daemon or of AWS."""

from collections.abc import Mapping

from botocore import exceptions

KEY_NEEDED = (
    "changes need an access key, and reads too where the daemon's api.reads is token: name a file with one as api.access_keys_file in the daemon's configuration, and set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to it here (docs/use/api.md)"
)
KEY_UNKNOWN = (
    "the daemon does not know the id of the access key that was sent: give it an entry in the file that api.access_keys_file "
    "names in the daemon's configuration, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to one of that file (docs/use/api.md)"
)
SECRET_WRONG = (
    "the daemon knows the id of the access key, but the secret is not the one in its api.access_keys_file, or the clocks "
    "differ by more than 5 minutes; set AWS_SECRET_ACCESS_KEY to it (docs/use/api.md)"
)
KEY_OF_AWS = "look at the credentials that are used here: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else AWS_PROFILE"
UUIDS = "poller mappings list shows the UUIDs that there are"
BUSY = "the last change is not applied yet; poller mappings get UUID shows the State, try again when it has settled"
LATER = "try again in some seconds"
UNCHANGED = "nothing was changed; correct what it names"
CHANGED = "somebody has changed it meanwhile; look at it again, and send the revision that it has now"
TAKEN = "nothing was changed; poller mappings list shows what is there"
NO_DAEMON = (
    "what answers there is no daemon of poller, or it does not know this name of itself (api.allowed_hosts)"
)
NOBODY_THERE = "is the address right, and does a daemon run there? (--url, or POLLER_URL)"
LOG_OF_DAEMON = "the daemon's log and poller status have the cause"
MEMBERS = "--help of the same command has an example, docs/use/configuration.md the members"

OF_DAEMON: Mapping[str, str] = {
    "MissingAuthenticationTokenException": KEY_NEEDED,
    "IncompleteSignatureException": KEY_NEEDED,
    "UnrecognizedClientException": KEY_UNKNOWN,
    "InvalidSignatureException": SECRET_WRONG,
    "AccessDeniedException": NO_DAEMON,
    "UnknownOperationException": NO_DAEMON,
    "ResourceNotFoundException": UUIDS,
    "ResourceConflictException": TAKEN,
    "PreconditionFailedException": CHANGED,
    "ResourceInUseException": BUSY,
    "TooManyRequestsException": LATER,
    "ServiceUnavailableException": LATER,
    "ServiceException": LOG_OF_DAEMON,
    "ValidationException": MEMBERS,
    "InvalidParameterValueException": UNCHANGED,
    "SerializationException": MEMBERS,
    "InvalidRequestContentException": UNCHANGED,
    "ResourceNotReadyException": LOG_OF_DAEMON,
}
"""Remedies by the code of a daemon's error."""
OF_AWS: Mapping[str, str] = {
    "MissingAuthenticationTokenException": KEY_OF_AWS,
    "IncompleteSignatureException": KEY_OF_AWS,
    "UnrecognizedClientException": KEY_OF_AWS,
    "InvalidSignatureException": f"{KEY_OF_AWS}; or set this machine's clock",
    "ExpiredTokenException": f"they have expired; {KEY_OF_AWS}",
    "AccessDeniedException": "these credentials need lambda:ListEventSourceMappings to read, and the like to change (docs/operate/iam.md)",
    "ResourceNotFoundException": "look at the UUID or the function's name, and at the region",
    "ResourceInUseException": BUSY,
    "TooManyRequestsException": LATER,
    "ServiceException": LATER,
}
"""Remedies by the code of an error of AWS."""
NOT_SENT: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ParamValidationError, MEMBERS),
    (exceptions.NoCredentialsError, KEY_OF_AWS),
    (exceptions.CredentialRetrievalError, KEY_OF_AWS),
    (exceptions.PartialCredentialsError, KEY_OF_AWS),
    (exceptions.ProfileNotFound, "write the profile, or unset AWS_PROFILE"),
    (exceptions.ReadTimeoutError, "it took too long; look at what is there now, and try again"),
    (exceptions.SSLError, "a daemon speaks plain http; https needs a proxy in front of it (docs/use/api.md)"),
    (exceptions.ConnectionError, NOBODY_THERE),
    (exceptions.HTTPClientError, NOBODY_THERE),
    (exceptions.BotoCoreError, ""),
)
"""Remedies by the exception, for requests that were not sent or not answered. The first that fits counts."""
ANSWER_UNCLEAR = "is this the address of a daemon? (--url, or POLLER_URL)"


def of_answer(code: str, *, aws: bool) -> str:
    """Returns the remedy for an error that was answered; empty if there is none."""
    return (OF_AWS if aws else OF_DAEMON).get(code, "" if aws or code.isalpha() else ANSWER_UNCLEAR)


def of_failure(error: Exception) -> str:
    """Returns the remedy for a request that got no answer; empty if there is none."""
    return next((remedy for kind, remedy in NOT_SENT if isinstance(error, kind)), "")
