"""Custom resources in a real Kubernetes: made, changed, blocked, freed, paused, deleted; two replicas; the daemon away and back.

The daemons are processes beside the cluster's control plane, with the rights of the role that deploy/kubernetes has.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.demo.processes import plain_environment
from deploy.cluster.following import ACCOUNT_NAME, NAMESPACE, POISON, Followed, followed

PROGRAMS = Path(os.environ.get("CLUSTER", Path.home() / ".cache" / "poller-cluster")) / "bin"
DELETE_S = "5s"
"""What a deletion may take: with a finalizer it would wait for the daemon."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    assert (PROGRAMS / "kube-apiserver").exists(), f"no Kubernetes in {PROGRAMS}: make cluster-build"
    with followed(PROGRAMS, tmp_path_factory.mktemp("cluster")) as found:
        yield found


def command(place: Followed, *words: str) -> str:
    """What a command of poller prints that asks the first daemon."""
    url = next(iter(place.urls.values()))
    done = subprocess.run(
        [sys.executable, "-m", "poller", *words, "--url", url],
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def mappings(place: Followed) -> list[str]:
    """The mappings that the first daemon knows."""
    return [each["mapping"] for each in json.loads(command(place, "status", "--json"))["mappings"]]


def deleted(place: Followed, name: str) -> None:
    """Deletes a resource as a user does, who waits until it is gone."""
    place.kubectl("delete", "eventsourcemapping", name, f"--timeout={DELETE_S}")


def test_a_resource_is_made_changed_refused_paused_and_deleted(place: Followed) -> None:
    arn = place.stream("orders")
    spec = {"eventSourceARN": arn, "startingPosition": "TRIM_HORIZON"}
    place.put("orders", "one", "two")
    with place.daemon("ann"):
        place.apply("orders", **spec)
        place.is_("orders", "Ready", reason="Running")
        place.took("one", "two")
        mapping = place.shown("orders")["metadata"]["uid"]
        assert place.shown("orders")["status"]["uuid"] == mapping
        assert "finalizers" not in place.shown("orders")["metadata"]
        place.until(lambda: place.shown("orders")["status"].get("shards") == 1)
        heads, row = place.kubectl("get", "esm").splitlines()
        assert heads.split() == ["NAME", "FUNCTION", "SOURCE", "READY", "BLOCKED", "LAG", "AGE"]
        assert row.split()[:5] == ["orders", "keeper", arn, "True", "False"]

        place.apply("orders", **spec, batchSize=7)
        place.is_("orders", "Ready", reason="Running")
        assert place.shown("orders")["status"]["observedGeneration"] == 2

        place.apply("orders", **spec, batchSize=0)
        refused = place.is_("orders", "Stalled")
        assert "at 'batchSize' failed to satisfy constraint" in refused["message"]
        place.put("orders", "three")
        place.took("three")

        place.apply("orders", **spec, enabled=False)
        place.is_("orders", "Paused", reason="Disabled")
        place.until(lambda: place.shown("orders")["status"]["state"] == "Disabled")
        assert place.condition("orders", "Stalled") == {}
        place.put("orders", "four")
        place.apply("orders", **spec)
        place.is_("orders", "Paused", "False")
        place.took("one", "two", "three", "four")
        place.until(lambda: place.events("orders") == ["Invalid", "Paused", "Resumed"])

        deleted(place, "orders")
        place.until(lambda: mapping not in mappings(place))


def test_a_batch_that_fails_blocks_the_resource_until_it_is_taken(place: Followed) -> None:
    place.keeper.failing = True
    arn = place.stream("mails")
    with place.daemon("ann"):
        place.put("mails", "a mail", f"{POISON} mail", "another mail")
        place.apply("mails", eventSourceARN=arn, startingPosition="TRIM_HORIZON", batchSize=1)
        blocked = place.is_("mails", "Blocked")
        assert "is blocked since" in blocked["message"]
        place.until(lambda: place.events("mails") == ["Blocked"])
        place.keeper.failing = False
        place.is_("mails", "Blocked", "False")
        place.took("a mail", f"{POISON} mail", "another mail")
        place.until(lambda: place.events("mails") == ["Blocked", "Freed"])
        deleted(place, "mails")
        place.until(lambda: mappings(place) == [])


def test_of_two_daemons_either_goes_on_when_the_other_one_is_killed(place: Followed) -> None:
    arns = {name: place.stream(name) for name in ("bills", "notes", "texts")}
    with place.daemon("ann") as ann, place.daemon("bob"):
        for name, arn in arns.items():
            place.apply(name, eventSourceARN=arn, startingPosition="TRIM_HORIZON")
        for name in arns:
            place.is_(name, "Ready", reason="Running")
            place.put(name, f"first of {name}")
        place.took("first of bills")
        ann.signal(signal.SIGKILL)
        del place.urls["ann"]
        for name, arn in arns.items():
            place.apply(name, eventSourceARN=arn, startingPosition="TRIM_HORIZON", batchSize=5)
            place.put(name, f"second of {name}")
        for name in arns:
            place.is_(name, "Ready", reason="Running")
            place.took(f"first of {name}", f"second of {name}")
        assert len(mappings(place)) == len(arns)
        for name in arns:
            deleted(place, name)


def test_without_a_daemon_nothing_hangs_and_one_that_comes_back_carries_out_what_happened(
    place: Followed,
) -> None:
    arns = {name: place.stream(name) for name in ("old", "kept", "new")}
    with place.daemon("ann") as ann:
        for name in ("old", "kept"):
            place.apply(name, eventSourceARN=arns[name], startingPosition="TRIM_HORIZON")
            place.is_(name, "Ready", reason="Running")
        old, kept = (place.shown(name)["metadata"]["uid"] for name in ("old", "kept"))
        ann.signal(signal.SIGKILL)
        place.until(lambda: ann.exit_status is not None)
    deleted(place, "old")
    place.apply("new", eventSourceARN=arns["new"], startingPosition="TRIM_HORIZON")
    place.apply("kept", eventSourceARN=arns["kept"], startingPosition="TRIM_HORIZON", batchSize=9)
    with place.daemon("ann"):
        place.is_("new", "Ready", reason="Running")
        place.is_("kept", "Ready", reason="Running")
        new = place.shown("new")["metadata"]["uid"]
        place.until(lambda: old not in mappings(place))
        assert sorted(mappings(place)) == sorted([kept, new])
        for name in ("new", "kept"):
            deleted(place, name)
        place.until(lambda: mappings(place) == [])


def test_the_role_gives_what_following_takes_and_nothing_else(place: Followed) -> None:
    rights = {
        ("get", "eventsourcemappings.poller.dev"): "yes",
        ("watch", "eventsourcemappings.poller.dev"): "yes",
        ("patch", "eventsourcemappings.poller.dev", "--subresource=status"): "yes",
        ("create", "events.events.k8s.io"): "yes",
        ("get", f"namespace/{NAMESPACE}"): "yes",
        ("patch", "eventsourcemappings.poller.dev"): "no",
        ("delete", "eventsourcemappings.poller.dev"): "no",
        ("list", "secrets"): "no",
        ("list", "events.events.k8s.io"): "no",
    }
    words = ("--as", ACCOUNT_NAME, "--namespace", NAMESPACE)
    asked = {
        each: place.cluster.tried("auth", "can-i", *each, *words).stdout.strip().splitlines()[-1]
        for each in rights
    }
    assert asked == rights


def test_another_namespace_of_the_same_name_is_refused_until_it_is_told_to_forget_the_first(
    place: Followed,
) -> None:
    """As with the store of another cluster. A namespace that is made again has another UID."""
    # The last one: the namespace is not the prepared one afterwards.
    arn = place.stream("moved")
    with place.daemon("ann"):
        place.apply("moved", eventSourceARN=arn, startingPosition="TRIM_HORIZON")
        place.is_("moved", "Ready", reason="Running")
        mapping = place.shown("moved")["metadata"]["uid"]
    uid = place.cluster.get("namespace", NAMESPACE)["metadata"]["uid"]
    place.namespace_again()
    with place.daemon("ann", ready=False):
        place.until(lambda: f"forget_namespace: {uid}" in command(place, "status", "--json"))
        assert mappings(place) == [mapping]
    with place.daemon("ann", forgets=uid):
        place.until(lambda: mappings(place) == [])
