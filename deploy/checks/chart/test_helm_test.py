"""What `helm test` runs: its two questions are asked for real, and its pod may do no more than ask."""

import asyncio
import sys
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from adapters.demo.emulator import credentials, emulator
from adapters.demo.processes import free_port, plain_environment
from deploy.checks.rendering import TOOLS, VALUES, Manifest, helm, of_kind, run, workload

FOLDER = VALUES[0].parent
POLLER = Path(sys.executable).parent / "poller"
QUESTION_S_MAX = 60.0


def hooks(*options: str | Path) -> list[Manifest]:
    """What belongs to the test."""
    found = helm(*options, tested=True)
    return [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def asking(found: list[Manifest]) -> dict[str, Manifest]:
    """The containers of the test, by name."""
    return {each["name"]: each for each in of_kind(found, "Pod")["spec"]["containers"]}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_pod_of_the_test_may_do_nothing_but_ask(values: Path) -> None:
    found = hooks("--values", values)
    assert {each["kind"] for each in found} <= {"Pod", "NetworkPolicy"}, "it gets no right of its own"
    spec = of_kind(found, "Pod")["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert (spec["restartPolicy"], spec["enableServiceLinks"]) == ("Never", False)
    assert spec["activeDeadlineSeconds"] >= QUESTION_S_MAX
    for one in spec["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in one["resources"]["limits"]
        assert all(mount["readOnly"] for mount in one.get("volumeMounts", ()))
    mounted = {mount["name"] for one in spec["containers"] for mount in one.get("volumeMounts", ())}
    assert mounted == {volume["name"] for volume in spec.get("volumes", ())}
    assert "POLLER_TOKEN" not in str(spec), "readiness needs no token"


def test_what_belongs_to_the_test_is_valid_kubernetes(tmp_path: Path) -> None:
    (file := tmp_path / "manifests.yaml").write_text(
        yaml.safe_dump_all(hooks("--values", FOLDER / "postgresql.yaml"))
    )
    told = run(TOOLS / "kubernetes-validate", "-k", "1.34.0", "--strict", file)
    assert told.count("passed for resource") == 3


def test_the_test_is_asked_for_and_goes_when_it_has_succeeded() -> None:
    for each in hooks():
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "test"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert (annotations.get("helm.sh/hook-weight") == "-1") is (each["kind"] == "NetworkPolicy")
    assert hooks("--set", "test.enabled=false") == []


def test_each_store_is_asked_where_a_pod_can_reach_it() -> None:
    minimal = ("--set", "autoscaling.minReplicas=0")
    assert asking(hooks()).keys() == {"ready", "store"}
    assert asking(hooks("--values", FOLDER / "postgresql.yaml")).keys() == {"ready", "store"}
    assert asking(hooks("--set", "store.type=sqlite")).keys() == {"ready"}, "its volume is the daemon's"
    assert asking(hooks("--values", FOLDER / "own-configmap.yaml")).keys() == {"ready"}
    assert asking(hooks("--values", FOLDER / "keda.yaml", *minimal)).keys() == {"store"}, (
        "there may be no pod"
    )
    assert asking(hooks("--set", "replicas=0")).keys() == {"store"}


def test_the_role_of_the_daemon_is_the_tests_only_for_a_store_of_aws() -> None:
    iam = "store.type=postgresql,store.postgresql.hosts[0]=db,store.postgresql.iam=true"
    for options, role in (
        ((), True),
        (("--set", iam), True),
        (("--values", FOLDER / "postgresql.yaml"), False),
    ):
        spec = of_kind(hooks(*options), "Pod")["spec"]
        assert spec.get("serviceAccountName") == ("poller" if role else None)
    static = of_kind(hooks("--set", "aws.credentialsSecret=keys"), "Pod")["spec"]
    assert "serviceAccountName" not in static
    names = {each["name"] for each in asking(hooks("--set", "aws.credentialsSecret=keys"))["store"]["env"]}
    assert names == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def test_the_test_gets_through_both_policies_and_no_service_leads_to_it() -> None:
    found = helm("--values", FOLDER / "postgresql.yaml", tested=True)
    labels = of_kind([each for each in found if each["kind"] == "Pod"], "Pod")["metadata"]["labels"]
    policies = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "NetworkPolicy"}
    daemon, inward, outward = (policies[f"poller{end}"] for end in ("", "-test-in", "-test-out"))
    assert inward["podSelector"] == daemon["podSelector"]
    (rule,) = inward["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert outward["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ingress" not in outward
    assert outward["egress"][:-1] == daemon["egress"]
    assert outward["egress"][-1] == {
        "to": [{"podSelector": daemon["podSelector"]}],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }
    assert not of_kind(found, "Service")["spec"]["selector"].items() <= labels.items()
    assert hooks("--set", "networkPolicy.enabled=false") == [
        each for each in hooks("--set", "networkPolicy.enabled=false") if each["kind"] == "Pod"
    ]


async def asked(port: int, *, patience_s: str) -> tuple[int, str]:
    """Exit status and words of the question for readiness, sent to a port of this machine."""
    one = asking(hooks())["ready"]
    program, *options = one["command"]
    script, url, _ = one["args"]
    assert (program, url) == ("python", "http://poller.poller.svc:8080/readyz")
    here = url.replace("poller.poller.svc:8080", f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *options,
        script,
        here,
        patience_s,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), QUESTION_S_MAX)
    return process.returncode or 0, said.decode()


def test_readiness_is_waited_for_and_its_reason_is_told() -> None:
    statuses = [503, 503, 200]

    async def readyz(request: web.Request) -> web.Response:
        status = statuses.pop(0) if statuses else 503
        return web.Response(status=status, text="ready" if status == 200 else "mapping orders is opening")

    async def asked_twice() -> tuple[tuple[int, str], tuple[int, str]]:
        app = web.Application()
        app.router.add_get("/readyz", readyz)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            return await asked(port, patience_s="60"), await asked(port, patience_s="0")
        finally:
            await runner.cleanup()

    well, ill = asyncio.run(asked_twice())
    assert well == (0, "200 ready\n")
    assert ill[0] == 1
    assert "503 mapping orders is opening" in ill[1]


def test_a_service_without_pods_fails_the_test() -> None:
    status, said = asyncio.run(asked(free_port(), patience_s="0"))
    assert status == 1
    assert "refused" in said


def test_the_store_is_checked_by_the_daemons_own_command(tmp_path: Path) -> None:
    """Against an emulator: a table that is there passes, and one that is missing fails and is not made."""
    options = ("--set", "store.dynamodb.region=us-east-1")
    args = asking(hooks(*options))["store"]["args"]
    assert args == ["store", "check", workload_store(helm(*options))]

    async def statuses() -> list[int]:
        async with emulator(tmp_path) as endpoint:
            env = {**plain_environment(), **credentials(), "AWS_ENDPOINT_URL": endpoint}
            before = await status_of(*args, env=env)
            still = await status_of(*args, env=env)
            made = await status_of("store", "init", args[-1], env=env)
            return [before, still, made, await status_of(*args, env=env)]

    assert asyncio.run(statuses()) == [2, 2, 0, 0]


def workload_store(found: list[Manifest]) -> str:
    """The store of the daemon itself."""
    assert workload(found)
    (text,) = (each["data"]["poller.yaml"] for each in found if "poller.yaml" in each.get("data", {}))
    store: str = yaml.safe_load(text)["store"]
    return store


async def status_of(*args: str, env: dict[str, str]) -> int:
    """The exit status of a command of poller."""
    process = await asyncio.create_subprocess_exec(
        POLLER, *args, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), QUESTION_S_MAX)
