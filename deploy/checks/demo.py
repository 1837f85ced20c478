"""Owns what a daemon is told that runs the demo's load for a check."""

from pathlib import Path
from typing import Any

from adapters.demo.daemon import BATCH_SIZE, configuration
from adapters.demo.scenario import Scene


def document(stage: Scene, *, listen: str, store: Path) -> dict[str, Any]:
    """The demo's own configuration, with another address and another place for the store."""
    return configuration(
        stage.resources,
        endpoint=stage.endpoint,
        listen=listen,
        store=store,
        function_url=stage.function_url,
        life=1,
        pause_s=0.0,
        batch_size=BATCH_SIZE,
    )
