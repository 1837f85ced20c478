"""Owns the port errors for PostgreSQL's errors, by SQLSTATE.

The server's own text is shown without its details, since these quote values of rows. A failed connection has no SQLSTATE in the
library, so it is always ServiceUnavailable, with the server's text.
"""

import psycopg

from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)

READ_ONLY = "25006"
"""A write met a server that is read-only: a standby, or a former primary. The next connection finds the right one."""
_CLASS_CHARS = 2
_MISSING = {
    "3D000": "the database does not exist; create it",
    "3F000": "the schema does not exist; run poller store init",
    "42P01": "a table is missing; run poller store init",
    "42703": "a column is missing; run poller store migrate",
}
_DENIED = {"42501": "the role lacks a permission"}
_DENIED_CLASSES = {"28"}
_THROTTLED = {
    "40001": "another transaction was in the way",
    "40P01": "two writes waited for each other",
    "53300": "all connections of the server are taken",
    "53400": "a limit of the server is reached",
    "55P03": "another transaction keeps a row locked",
    "57014": "the statement took longer than statement_timeout",
    "57P03": "the server starts or ends",
}
_UNAVAILABLE = {
    READ_ONLY: "the server is read-only; it is a standby, or a primary that was replaced or protected",
    "53100": "the server's disk is full; make room",
    "53200": "the server is out of memory",
    "57P01": "the server ended the connection",
    "57P02": "the server crashed",
    "58030": "the server's disk fails",
    "XX001": "the database is damaged; restore a backup",
    "XX002": "an index is damaged; run REINDEX",
}


def mapped(error: psycopg.Error, place: str) -> PortError:
    """Returns the port error for an error of a statement. `place` names the database."""
    code = error.sqlstate
    if code is None:
        return ServiceUnavailable(f"{place}: the connection was lost: {type(error).__name__}")
    said = f"{error.diag.message_primary or type(error).__name__} (SQLSTATE {code})"
    if code in _MISSING:
        return ResourceMissing(f"{place}: {_MISSING[code]}: {said}")
    if code in _DENIED or code[:_CLASS_CHARS] in _DENIED_CLASSES:
        return AccessDenied(f"{place}: {_DENIED.get(code, 'the server refuses the role')}: {said}")
    if code in _THROTTLED:
        return ServiceThrottled(f"{place}: {_THROTTLED[code]}: {said}")
    return ServiceUnavailable(f"{place}: {_UNAVAILABLE.get(code, 'the statement failed')}: {said}")


def unconnected(error: psycopg.Error, place: str) -> ServiceUnavailable:
    """Returns the port error for a connection that could not be made. No password is in the library's texts."""
    return ServiceUnavailable(f"{place}: no connection: {error}")
