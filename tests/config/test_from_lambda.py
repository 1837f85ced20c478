"""The page on moving from Lambda says what is true of the code."""

import re
from pathlib import Path

from poller.config.daemon_plan import daemon_plan
from poller.config.loader import load

PAGE = Path(__file__).parents[2] / "docs/use/from-lambda.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_its_configuration_is_valid_and_means_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text(blocks("yaml")[0])
    plan = daemon_plan(load(file, {}))
    function = plan.functions["orders"]
    assert (function.invoker, function.timeout_s) == ("python", 20.0)
    assert function.settings["processes"] == 5
    queue, stream = plan.mappings
    assert (queue.scaling.concurrency_max, stream.stream.lanes, stream.stream.start.latest) == (5, 2, True)


def test_its_moment_is_a_starting_position(tmp_path: Path) -> None:
    whole, moment = blocks("yaml")[0], re.findall(r"  ```yaml\n(.*?)  ```", PAGE.read_text(), re.DOTALL)[0]
    file = tmp_path / "poller.yaml"
    file.write_text(whole.replace("    StartingPosition: LATEST\n", moment))
    stream = daemon_plan(load(file, {})).mappings[1]
    assert stream.stream.start.since == 1_795_980_005.0
