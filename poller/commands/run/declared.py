"""Owns the command line of `poller run`. Everything else is imported when the command is called."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.commands.options import CommonOptions, Config, given_options, grouped, loaded_or_exit, one_of
from poller.commands.run import early_signals

if TYPE_CHECKING:
    from poller.commands.supervise.own_process import OwnProcess
    from poller.config.settings import Settings

Listen = Annotated[str | None, typer.Option("--listen", help="HOST:PORT of API, health and metrics.")]
Worker = Annotated[str | None, typer.Option("--worker", help="Name of this worker; unique among replicas.")]
Level = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        help="debug, info, warning or error.",
        autocompletion=one_of("debug", "info", "warning", "error"),
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--log-format", help="json or console.", autocompletion=one_of("json", "console")),
]
ProcessCount = Annotated[
    str,
    typer.Option(
        "--processes",
        metavar="N|auto",
        help="Worker processes on this machine; auto: one for each processor that it may use.",
        autocompletion=one_of("auto"),
    ),
]
AsProcess = Annotated[str | None, typer.Option("--as-process", hidden=True)]
"""Given by a supervisor only: the place of this process."""


@grouped
def run(
    config: Config,
    *,
    listen: Listen = None,
    places: CommonOptions,
    worker: Worker = None,
    log_level: Level = None,
    log_format: Format = None,
    processes: ProcessCount = "1",
    as_process: AsProcess = None,
) -> None:
    """Runs the daemon until SIGTERM or SIGINT, and follows changes of the configuration file meanwhile.

    The first signal drains: running invocations finish, checkpoints are saved, exit status 0. A second one cancels them, and so
    does the end of the grace time: exit status 1 if any was cut off.

    With --processes, one daemon uses several processors: a supervisor starts so many workers on the store, starts those again that
    end, and ends all of them together. They have one port, and share tuning.memory_mb.

    Example: poller run --config poller.yaml --listen 127.0.0.1:8080

    Example: poller run --config poller.yaml --processes auto
    """
    given: dict[str, Any] = {**asdict(places), "listen": listen, "worker": worker}
    given |= {"log": {"level": log_level, "format": log_format}}
    from poller.config.yaml_files import signature

    seen = loaded_or_exit(lambda: signature(config))
    from poller.commands.shared import LoadablePlugins
    from poller.commands.supervise.command import processes_of, supervise
    from poller.commands.supervise.place import settings_of_process
    from poller.config.loader import load_all

    own = None if as_process is None else loaded_or_exit(partial(_own_process, as_process))

    def load() -> "Settings":
        settings = load_all(config, given_options(given), LoadablePlugins())
        return settings if own is None else settings_of_process(settings, own.place)

    settings = loaded_or_exit(load)
    if own is None and (count := loaded_or_exit(partial(processes_of, processes))) > 1:
        status = supervise(settings, LoadablePlugins(), processes=count, place=str(config))
        early_signals.ignore()
        raise typer.Exit(status)
    from poller.commands.run.command import ConfigurationFile, run_daemon
    from poller.commands.run.ending import exit_in_time
    from poller.output.last_words import LastWords
    from poller.runtime.daemon import Daemon

    file = ConfigurationFile(config, load, seen)
    words = LastWords()
    status = run_daemon(
        settings, LoadablePlugins(), Daemon, place=str(config), file=file, words=words, process=own
    )
    if early_signals.ignore():
        exit_in_time(status, words.form)
    raise typer.Exit(status)


def _own_process(option: str) -> "OwnProcess":
    """This process, which a supervisor has started. Raises InvalidConfiguration if it has not."""
    from poller.commands.supervise.own_process import OwnProcess
    from poller.commands.supervise.place import place_of_option, stay_with_supervisor

    place = place_of_option(option)
    stay_with_supervisor(place)
    return OwnProcess(place)
