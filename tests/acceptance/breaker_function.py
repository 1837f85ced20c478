"""A function that fails while a file is there; each call appends a line to another file."""

import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("BREAKER_FOLDER", "."))


def handle(event: dict[str, Any], context: Any) -> None:
    """Fails while `broken` is there."""
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{time.time()} {event['Records'][0]['body']}\n")
    if (FOLDER / "broken").exists():
        raise ConnectionError("the database is gone")
    with (FOLDER / "done").open("a") as file:
        file.write(f"{event['Records'][0]['body']}\n")
