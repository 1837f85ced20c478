"""Code of functions that changes while they are open: real files, in the daemon's process and in child processes."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.function_code.reloading import OLD_VERSIONS_MAX
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.invocations import FunctionError, Succeeded, TimedOut
from poller.testing.invoker import invocation
from tests.adapters.invokers.function_code.sites import WAIT_S_MAX, WAYS, replace, site, write
from tests.contracts.invokers import environment

APP = """
import os, time
import helper
from shop import deep

def act(event, context):
    import late
    if event and "until" in event:
        while not os.path.exists(event["until"]):
            time.sleep(0.01)
    if event and "raises" in event:
        raise KeyError(helper.NAME)  # as it was
    return [helper.NAME, deep.NAME, late.NAME, os.getpid()]
"""
FILES = {
    "app.py": APP,
    "helper.py": "NAME = 'helper'\n",
    "late.py": "NAME = 'late'\n",
    "shop/__init__.py": "",
    "shop/deep.py": "from .deeper import NAME\n",
    "shop/deeper.py": "NAME = 'deep'\n",
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


def rewritten(folder: Path) -> None:
    (folder / "helper.py").write_text("NAME = 'HELPER'\n")


def of_the_same_size_and_time(folder: Path) -> None:
    status = (folder / "helper.py").stat()
    rewritten(folder)
    os.utime(folder / "helper.py", ns=(status.st_atime_ns, status.st_mtime_ns))


def renamed(folder: Path) -> None:
    replace(folder / "helper.py", "NAME = 'HELPER'\n")


def half_written(folder: Path) -> None:
    (folder / "helper.py").write_text("NAME = 'HEL")
    with (folder / "helper.py").open("a") as file:
        file.write("PER'\n")


def made_a_package(folder: Path) -> None:
    (folder / "helper.py").unlink()
    write(folder, {"helper/__init__.py": "NAME = 'HELPER'\n"})


def no_more_needed(folder: Path) -> None:
    (folder / "helper.py").unlink()
    replace(folder / "app.py", APP.replace("import helper", "class helper: NAME = 'HELPER'"))


CHANGES: list[Callable[[Path], None]] = [
    rewritten,
    of_the_same_size_and_time,
    renamed,
    half_written,
    made_a_package,
    no_more_needed,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_taken_up_however_it_was_made(tmp_path: Path, way: Any, change: Any) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path, **way) as function:
            assert (await function.answer())[:3] == ["helper", "deep", "late"]
            change(tmp_path)
            await function.taken_up(1)
            assert (await function.answer())[:3] == ["HELPER", "deep", "late"]
            assert [each.taken_up for each in function.said] == [1]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["shop/deeper.py", "late.py"])
def test_modules_of_packages_and_those_that_a_call_imports_are_followed(
    tmp_path: Path, way: Any, name: str
) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path, **way) as function:
            await function.answer()
            replace(tmp_path / name, "NAME = 'new'\n")
            await function.taken_up(1)
            assert "new" in await function.answer()

    asyncio.run(run())


def test_links_that_lead_elsewhere_are_a_change_as_in_a_configmap(tmp_path: Path, way: Any) -> None:
    write(tmp_path / "..1", FILES)
    write(tmp_path / "..2", FILES | {"helper.py": "NAME = 'second'\n", "shop/deeper.py": "NAME = 'second'\n"})
    os.symlink("..1", tmp_path / "..data")
    for name in ("app.py", "helper.py", "late.py", "shop"):
        os.symlink(f"..data/{name}", tmp_path / name)

    async def run() -> None:
        async with site(tmp_path, **way) as function:
            os.symlink("..2", tmp_path / "..new")
            os.replace(tmp_path / "..new", tmp_path / "..data")
            shutil.rmtree(tmp_path / "..1")
            await function.taken_up(1)
            assert (await function.answer())[:2] == ["second", "second"]

    asyncio.run(run())


def test_a_folder_that_is_a_link_may_lead_to_another_release(tmp_path: Path, way: Any) -> None:
    write(tmp_path / "1", FILES)
    write(tmp_path / "2", FILES | {"helper.py": "NAME = 'second'\n"})
    os.symlink("1", tmp_path / "current")

    async def run() -> None:
        async with site(tmp_path / "current", **way) as function:
            os.symlink("2", tmp_path / "next")
            os.replace(tmp_path / "next", tmp_path / "current")
            await function.taken_up(1)
            assert (await function.answer())[0] == "second"

    asyncio.run(run())


BROKEN = {
    "a syntax error": ("helper.py", "NAME = 'helper\n", "SyntaxError"),
    "an import of nothing": ("helper.py", "import nothing_there\nNAME = 'x'\n", "no module 'nothing_there'"),
    "an own module that is not there yet": ("helper.py", "from shop import soon\nNAME = 'x'\n", "soon"),
    "an error at import": ("helper.py", "raise SystemExit('no')\n", "SystemExit: no"),
    "no handler": ("app.py", "import helper\n", "has no attribute 'act'"),
    "a handler that is no function": ("app.py", "act = 1\n", "act is a int"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_change_keeps_the_old_code_and_says_so_until_it_is_mended(
    tmp_path: Path, way: Any, what: str
) -> None:
    name, text, said = BROKEN[what]
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path, **way) as function:
            replace(tmp_path / name, text)
            refused = await function.refused()
            assert said in refused
            assert "@" not in refused, "the name that the module has in the daemon is nobody's business"
            assert (await function.answer())[:3] == ["helper", "deep", "late"]
            replace(tmp_path / "helper.py", "NAME = 'mended'\n")
            replace(tmp_path / "app.py", APP)
            await function.until(lambda code: code.taken_up == 1)
            assert (await function.answer())[0] == "mended"
            async with asyncio.timeout(10):
                while function.said[-1].refused:  # noqa: ASYNC110 - it is said in the next moment
                    await asyncio.sleep(0.02)
            assert function.said[0].refused

    asyncio.run(run())


def test_a_new_module_that_was_missing_mends_the_change(tmp_path: Path) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path) as function:
            replace(tmp_path / "helper.py", "from shop.soon import NAME\n")
            await function.refused()
            write(tmp_path, {"shop/soon.py": "NAME = 'here'\n"})
            await function.until(lambda code: code.taken_up == 1)
            assert (await function.answer())[0] == "here"

    asyncio.run(run())


def test_a_change_that_is_undone_is_mended_without_another_version(tmp_path: Path) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path) as function:
            replace(tmp_path / "app.py", "(")
            await function.refused()
            replace(tmp_path / "app.py", APP)
            await function.until(lambda code: not code.refused)
            assert [each.taken_up for each in function.said] == [0, 0]

    asyncio.run(run())


def test_an_asynchronous_handler_stays_one_and_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "async def act(event, context):\n    return 1\n"})

    async def run() -> None:
        async with site(tmp_path) as function:
            replace(tmp_path / "app.py", "async def act(event, context):\n    return 2\n")
            await function.taken_up(1)
            assert await function.answer() == 2
            replace(tmp_path / "app.py", "def act(event, context):\n    return 3\n")
            assert "so many calls could run at once: 1, and now it is any number" in await function.refused()
            assert await function.answer() == 2

    asyncio.run(run())


def test_a_running_call_ends_in_the_code_in_which_it_began(tmp_path: Path, way: Any) -> None:
    write(tmp_path, FILES)
    ended = tmp_path / "ended"

    async def run() -> None:
        async with site(tmp_path, **way) as function, asyncio.TaskGroup() as calls:
            running = calls.create_task(function.answer({"until": str(ended)}))
            await asyncio.sleep(0.3)
            replace(tmp_path / "helper.py", "NAME = 'new'\n")
            replace(tmp_path / "late.py", "NAME = 'new'\n")
            await function.taken_up(1)
            assert (await function.answer())[:3] == ["new", "deep", "new"]
            assert not running.done()
            ended.touch()
            assert (await running)[:3] == ["helper", "deep", "late"]

    asyncio.run(run())


def test_a_trace_shows_the_lines_that_run(tmp_path: Path, way: Any) -> None:
    write(tmp_path, FILES)
    above = "\n\n\n" + APP.replace("as it was", "as it is")

    async def run() -> None:
        async with site(tmp_path, **way) as function:
            for text, said in ((APP, "as it was"), ("(", "as it was"), (above, "as it is")):
                before = function.invoker.code
                replace(tmp_path / "app.py", text)
                if text != APP:
                    await function.until(lambda code, before=before: code != before)  # type: ignore[misc]  # bound
                outcome = await function.outcome({"raises": 1})
                assert isinstance(outcome, FunctionError)
                assert outcome.stack_trace[-1].endswith(f"# {said}")

    asyncio.run(run())


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_processes_are_replaced(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    gate = tmp_path / "gate"

    async def pids(function: Any) -> set[int]:
        gate.unlink(missing_ok=True)
        async with asyncio.TaskGroup() as calls:
            both = [calls.create_task(function.answer({"until": str(gate)})) for _ in range(2)]
            await asyncio.sleep(1.0)
            gate.touch()
        return {(await each)[-1] for each in both}

    async def run() -> None:
        async with site(tmp_path, **WAYS["in processes"]) as function:
            old = await pids(function)
            replace(tmp_path / "helper.py", "NAME = 'new'\n")
            await function.taken_up(1)
            async with asyncio.timeout(WAIT_S_MAX):
                while any(map(alive, old)):  # noqa: ASYNC110 - another process ends
                    await asyncio.sleep(0.05)
            # The last one was ended when the one for it had started, so that none starts any more.
            new = await pids(function)
            assert (len(old), len(new), old & new) == (2, 2, set())

    asyncio.run(run())


def test_a_process_that_ends_while_the_code_is_broken_comes_again_with_the_old_code(tmp_path: Path) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        async with site(tmp_path, **WAYS["in processes"]) as function:
            before = await function.answer()
            replace(tmp_path / "app.py", "(")
            (tmp_path / "helper.py").unlink()
            await function.refused()
            os.kill(before[-1], signal.SIGKILL)
            await asyncio.sleep(0.3)
            after = await function.answer()
            assert after[:3] == before[:3]
            assert after[-1] != before[-1]

    asyncio.run(run())


def test_calls_that_never_end_bound_how_many_versions_there_are(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    gate = tmp_path / "gate"

    async def run() -> None:
        async with site(tmp_path) as function:
            for version in range(OLD_VERSIONS_MAX):
                assert await function.outcome({"until": str(gate)}, timeout_s=0.05) == TimedOut(0.05)
                replace(tmp_path / "helper.py", f"NAME = {version}\n")
                await function.taken_up(version + 1)
            assert function.invoker.calls_left == OLD_VERSIONS_MAX
            assert (await function.answer())[0] == OLD_VERSIONS_MAX - 1, (
                "each version has a thread of its own"
            )
            replace(tmp_path / "helper.py", "NAME = 'one more'\n")
            assert "earlier versions still run" in await function.refused()
            gate.touch()
            replace(tmp_path / "helper.py", "NAME = 'at last'\n")
            await function.until(lambda code: not code.refused)
            assert (await function.answer())[0] == "at last"
            assert function.invoker.calls_left == 0

    asyncio.run(run())


def test_without_reload_nothing_is_watched(tmp_path: Path, way: Any) -> None:
    write(tmp_path, FILES)

    async def run() -> None:
        given = PythonSettings.model_validate(
            {"function": "orders", "handler": "app.act", "code": tmp_path} | way
        )
        async with environment() as env, open_python(given, env) as invoker:
            assert not hasattr(invoker, "follow_code")
            outcome = await invoker.invoke(invocation(None, timeout_s=60))
            assert isinstance(outcome, Succeeded)

    asyncio.run(run())


def test_functions_with_modules_of_the_same_names_are_apart(tmp_path: Path, way: Any) -> None:
    for name in ("orders", "audit"):
        write(tmp_path / name, FILES | {"helper.py": f"NAME = '{name}'\n"})

    async def run() -> None:
        async with (
            environment() as env,
            site(tmp_path / "orders", env=env, **way) as one,
            site(tmp_path / "audit", env=env, **way, function="audit") as other,
        ):
            assert [(await each.answer())[0] for each in (one, other)] == ["orders", "audit"]
            replace(tmp_path / "audit" / "helper.py", "NAME = 'new'\n")
            await other.taken_up(1)
            assert [(await each.answer())[0] for each in (one, other)] == ["orders", "new"]
            assert one.invoker.code.taken_up == 0

    asyncio.run(run())
