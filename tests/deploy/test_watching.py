"""How pods of a test cluster ended is what containerd says of their containers."""

import json
from pathlib import Path

from deploy.cluster.watching import CONTAINER, Watch


def pod(name: str, container: str | None) -> str:
    status = {"name": CONTAINER} | ({} if container is None else {"containerID": f"containerd://{container}"})
    found = {"metadata": {"name": name, "uid": name}, "status": {"containerStatuses": [status]}}
    return json.dumps({"type": "MODIFIED", "object": found})


def said(topic: str, content: dict[str, object]) -> str:
    return f"2026-01-01 00:00:00.123456789 +0000 UTC k8s.io {topic} {json.dumps(content)}\n"


def test_a_pod_ends_with_the_status_of_its_container(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "pods.json", tmp_path / "pods.events")
    watch.file.write_text(
        pod("drained", None) + pod("drained", "aa") + pod("killed", "bb") + pod("running", "cc")
    )
    watch.events_file.write_text(
        said("/tasks/start", {"container_id": "aa", "pid": 7})
        + said("/tasks/exit", {"container_id": "cc", "id": "a command", "pid": 8, "exit_status": 1})
        + said("/tasks/exit", {"container_id": "aa", "id": "aa", "pid": 7})
        + said("/tasks/exit", {"container_id": "bb", "id": "bb", "pid": 9, "exit_status": 137})
        + said("/tasks/exit", {"container_id": "cc"})[:-3]
    )
    assert watch.ends() == {"drained": 0, "killed": 137}
