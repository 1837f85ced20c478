"""What a process is told at its start, and what that changes in its settings."""

import os

import pytest

from poller.commands.supervise.command import processes_of
from poller.commands.supervise.place import ProcessPlace, place_of_option, settings_of_process, worker_of
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import Tuning
from poller.runtime.memory.limits import fitting_mb


def _place(*, processes: int = 4, link: int = 0, listening: int = 0) -> ProcessPlace:
    return ProcessPlace(
        index=1, processes=processes, worker="w-1", link=link, listening=listening, supervisor=os.getpid()
    )


def test_a_place_is_read_as_it_was_written() -> None:
    assert place_of_option(_place().as_option()) == _place()


@pytest.mark.parametrize(
    "text", ["", "2", "[]", "{}", '{"index": 1}', _place(link=999).as_option()], ids=range(6)
)
def test_an_option_that_no_supervisor_has_written_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="use --processes"):
        place_of_option(text)


def test_each_process_has_its_share_of_the_memory_and_a_name_of_its_own() -> None:
    settings = settings_of_process(Settings(tuning=Tuning(memory_mb=1000), worker="w"), _place())
    assert settings.tuning.memory_mb == 250
    assert settings.worker == "w-1" == worker_of("w", 1)


def test_the_default_for_the_memory_is_shared_too() -> None:
    share = settings_of_process(Settings(), _place()).tuning.memory_mb
    assert share == max(64, fitting_mb() // 4)


def test_a_share_with_which_no_process_can_work_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidConfiguration, match="write 256 or more"):
        settings_of_process(Settings(tuning=Tuning(memory_mb=255)), _place())


@pytest.mark.parametrize("text", ["0", "many", "1000"])
def test_a_wrong_number_of_processes_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="write auto, or a number from 1 to 64"):
        processes_of(text)
