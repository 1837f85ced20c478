"""The loop that the daemon shares with asynchronous functions: whatever a function does to it, the daemon goes on."""

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from poller.commands.run.daemon_loop import DaemonLoop, LoopThreads
from poller.foreign_tasks import foreign_context, make_task

LIMIT_S = 5.0
MORE_THREADS_THAN_AN_EXECUTOR = 40


async def _executor_that_ends(loop: asyncio.AbstractEventLoop) -> None:
    with ThreadPoolExecutor(1) as executor:
        loop.set_default_executor(executor)
        await asyncio.to_thread(int)


GUARDED: dict[str, Callable[[asyncio.AbstractEventLoop], Any]] = {
    "stop": lambda loop: loop.stop(),
    "shutdown_asyncgens": lambda loop: loop.shutdown_asyncgens(),
    "shutdown_default_executor": lambda loop: loop.shutdown_default_executor(),
    "set_default_executor": _executor_that_ends,
    "set_task_factory": lambda loop: loop.set_task_factory(asyncio.eager_task_factory),
    "set_exception_handler": lambda loop: loop.set_exception_handler(lambda *_: None),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGTERM, lambda: None),
    "remove_signal_handler": lambda loop: loop.remove_signal_handler(signal.SIGTERM),
}
"""Methods that could change the loop for the daemon, and a use of each as a function would make it."""

REFUSED = {"close", "run_forever", "run_until_complete"}
"""Methods that raise while the loop runs."""

OWN = {
    *("call_at", "call_later", "call_soon", "call_soon_threadsafe", "create_future", "create_task", "time"),
    *("connect_accepted_socket", "connect_read_pipe", "connect_write_pipe", "create_connection"),
    *("create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server"),
    *("sendfile", "start_tls", "subprocess_exec", "subprocess_shell", "getaddrinfo", "getnameinfo"),
    *("add_reader", "add_writer", "remove_reader", "remove_writer"),
    *("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"),
    *("sock_sendall", "sock_sendfile", "sock_sendto"),
    *("call_exception_handler", "default_exception_handler", "get_exception_handler", "get_task_factory"),
    *("get_debug", "set_debug", "is_closed", "is_running", "run_in_executor"),
}
"""Methods that concern only what a function makes, or only tell something."""


def test_each_method_of_a_loop_was_decided_about() -> None:
    methods = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}
    assert methods == {*GUARDED, *REFUSED, *OWN}


def play(script: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs `script` on a daemon's loop."""
    threads = LoopThreads()

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S):
            await script(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=lambda: DaemonLoop(threads)) as runner:
        runner.run(main())
        threads.shut_down()


def call(name: str, function: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
    """A call of an asynchronous function, as the invoker makes it."""
    return asyncio.Task(function(), context=foreign_context(name))


@pytest.mark.parametrize("method", GUARDED)
def test_what_a_function_does_to_the_loop_changes_nothing_for_the_daemon(method: str) -> None:
    told: list[str] = []

    async def opened() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            told.append("closed")

    async def script(loop: asyncio.AbstractEventLoop) -> None:
        handled = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, handled.set)
        loop.set_exception_handler(lambda *_: told.append("error"))
        generator = aiter(opened())
        await anext(generator)

        async def function() -> None:
            done = GUARDED[method](loop)
            if asyncio.iscoroutine(done):
                await done

        await call("function", function)
        await asyncio.sleep(0)
        assert await asyncio.to_thread(lambda: 5) == 5
        assert await anext(generator) == 2
        assert told == []
        loop.call_exception_handler({"message": "of the daemon"})
        assert told == ["error"]
        assert loop.get_task_factory() is make_task
        signal.raise_signal(signal.SIGTERM)
        await handled.wait()
        loop.remove_signal_handler(signal.SIGTERM)

    play(script)


def test_threads_of_a_function_hold_up_neither_the_daemon_nor_other_functions() -> None:
    done = threading.Event()

    async def script(_: asyncio.AbstractEventLoop) -> None:
        async def blocks() -> None:
            await asyncio.to_thread(done.wait)

        async def works() -> int:
            return await asyncio.to_thread(lambda: 7)

        blocked = [call("blocks", blocks) for _ in range(MORE_THREADS_THAN_AN_EXECUTOR)]
        try:
            await asyncio.sleep(0.1)
            assert await asyncio.to_thread(lambda: 5) == 5
            assert await call("works", works) == 7
        finally:
            done.set()
        await asyncio.wait(blocked)

    play(script)


def test_names_that_a_function_looks_up_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [done.wait()])

    async def script(loop: asyncio.AbstractEventLoop) -> None:
        async def looks_up() -> Any:
            return await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

        lookups = [call("looks up", looks_up) for _ in range(MORE_THREADS_THAN_AN_EXECUTOR)]
        try:
            await asyncio.sleep(0.1)
            assert not any(each.done() for each in lookups)
            found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        finally:
            done.set()
        assert found[0][4][1] == 80
        assert await asyncio.gather(*lookups) == [[True]] * MORE_THREADS_THAN_AN_EXECUTOR

    play(script)


def test_the_executor_that_a_function_sets_holds_for_its_call() -> None:
    names: list[str] = []

    async def script(loop: asyncio.AbstractEventLoop) -> None:
        async def sets() -> None:
            with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
                loop.set_default_executor(executor)
                names.append(await asyncio.to_thread(lambda: threading.current_thread().name))

        async def uses() -> None:
            names.append(await asyncio.to_thread(lambda: threading.current_thread().name))

        await call("function", sets)
        await call("function", uses)

    play(script)
    assert [name.startswith("mine") for name in names] == [True, False]
