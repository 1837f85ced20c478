"""The modules of the page that need no browser: their own tests in Node.js, and their sentences beside those of the commands."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poller.commands.operations.sentences import sentence
from poller.commands.operations.targets import Target
from poller.domain.operations import Action
from poller.domain.records import Epoch
from poller.domain.status import LaneStatus, MappingStatus, ShardStatus
from poller.domain.untrusted.rendering import as_json
from tests.adapters.control.page.scenes import blocked_lane, queue, shard, stream
from tests.emulators import node

UNITS = sorted((Path(__file__).parent / "units").glob("*.test.mjs"))
PAGE = Path(__file__).parents[4] / "adapters" / "control" / "page"
NODE_S_MAX = 60
NOW = Epoch(1_800_000_000.0)
SAY = """
import { readFileSync } from 'node:fs';
import { nothingKnown, after } from 'PAGE/daemon/state.js';
import { sentence } from 'PAGE/operations/sentences.js';
const said = JSON.parse(readFileSync(0)).map(({ mapping, shard, lane, group, action, members, now }) => {
  const { mappings } = after(nothingKnown(), 'status', { mappings: [mapping] });
  const known = mappings.get(mapping.mapping);
  const held = shard === null ? undefined : known.shards.get(shard);
  const name = group ?? (lane === null ? null : String(lane));
  const found = (held ? held.lanes : known.lanes).find((each) => each.lane === name);
  const target = { mapping: known, ...(held ? { shard: held } : {}), ...(found ? { lane: found } : {}), ...(group === null ? {} : { group }) };
  return sentence(action, target, members, now);
});
process.stdout.write(JSON.stringify(said));
"""


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units(path: Path) -> None:
    done = subprocess.run(
        [node()[0], "--no-warnings", "--test", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=NODE_S_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def lane(**more: Any) -> LaneStatus:
    """A lane in trouble, at times that do not change."""
    times = {"blocked_since": Epoch(NOW - 240), "next_try": Epoch(NOW + 9), "retained_until": None}
    found = blocked_lane(**{**times, **more})
    return replace(found, records=tuple(replace(each, arrived=Epoch(NOW - 300)) for each in found.records))


def targets() -> list[Target]:
    """What an operation may be about: with a destination and without one, with one lane that fails, several, and none."""
    one, two = (
        shard(0, lanes=(lane(),)),
        shard(1, lanes=(lane(), lane(lane="1", blocked_since=Epoch(NOW - 999)))),
    )
    well = shard(2)
    alone = shard(3, lanes=(lane(records_count=1), LaneStatus(lane="1", state="idle")))
    orders = stream([one, two, well, alone])
    lost = replace(orders, destination="")
    mails = queue([lane(lane="customer-9", attempts_max=10), LaneStatus(lane="poller 1", state="idle")])
    return [
        *(Target(mapping=each) for each in (orders, mails, stream([well]))),
        *(of(mapping, each) for mapping in (orders, lost) for each in (one, two, well, alone)),
        *(of(orders, each, 0) for each in (one, two, alone)),
        Target(mapping=mails, group="customer-9"),
    ]


def of(mapping: MappingStatus, status: ShardStatus, lane: int | None = None) -> Target:
    """A shard, or a lane of it."""
    return Target(mapping=mapping, shard=status.shard, lane=lane, status=status)


MEMBERS: list[tuple[Action, dict[str, Any]]] = [
    (Action.RETRY, {}),
    (Action.RESET, {}),
    (Action.PAUSE, {}),
    (Action.RESUME, {}),
    *(
        (Action.SKIP, {"records": records, **discard})
        for records in ("first", "batch", ["495"], ["1", "2", "3", "4", "5"])
        for discard in ({}, {"discard": True})
    ),
    (Action.SEEK, {"to": "LATEST"}),
    (Action.SEEK, {"to": "2026-01-31T08:00:00Z", "skip": True}),
    (Action.REPLAY, {"from": "TRIM_HORIZON", "to": "LATEST", "on_failure": "stop"}),
    (
        Action.REPLAY,
        {
            "from": "1",
            "to": "2",
            "on_failure": "skip",
            "function": "audit",
            "filter": "{}",
            "records_per_s": 2.5,
        },
    ),
    (Action.REPLAY, {"from": "1", "to": "2", "on_failure": "s3://failed"}),
    (Action.REDRIVE, {"from": "s3://failed"}),
    (Action.REDRIVE, {"from": "s3://failed", "limit": 5}),
]


def test_the_page_says_what_the_commands_say() -> None:
    cases = [(target, action, members) for target in targets() for action, members in MEMBERS]
    asked = [
        {
            "mapping": json.loads(as_json(target.mapping)),
            "shard": target.shard,
            "lane": target.lane,
            "group": target.group,
            "action": action,
            "members": members,
            "now": NOW,
        }
        for target, action, members in cases
    ]
    done = subprocess.run(
        [node()[0], "--no-warnings", "--input-type=module", "-e", SAY.replace("PAGE", str(PAGE))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=NODE_S_MAX,
    )
    expected = [sentence(action, target, members, now=NOW) for target, action, members in cases]
    assert json.loads(done.stdout) == expected
