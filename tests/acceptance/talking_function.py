"""Functions that log, print and fail as the body of their message says; `serve` is one behind a URL, which some bodies kill."""

import logging
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

logger = logging.getLogger()


def handle(event: dict[str, Any], context: Any) -> None:
    """Logs and prints the body, and fails: each body with an error of its own, `same` with one."""
    body = event["Records"][0]["body"]
    logger.info("logged %s by %s", body, context.aws_request_id)
    print("printed", body, "by", context.aws_request_id)
    if body.startswith("different"):
        raise ValueError(f"nothing is {body}")
    if body.startswith("same"):
        raise KeyError("same")


class Deadly(BaseHTTPRequestHandler):
    """Writes down what it gets and answers; a body with `poison` ends the process."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"poison" in body:
            os._exit(9)
        with Path(sys.argv[2]).open("ab") as journal:
            journal.write(body + b"\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Deadly) as server:
        server.serve_forever()
