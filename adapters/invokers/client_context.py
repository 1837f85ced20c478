"""Owns the client context of a call, which its caller sends as base64 of JSON."""

import base64
import json


def context_json(client_context: str) -> str:
    """Returns the JSON text of a client context on one line, in ASCII; empty if there is none."""
    if not client_context:
        return ""
    # As JSON text it could have line feeds, which would begin other headers.
    return json.dumps(json.loads(base64.b64decode(client_context)))
