"""Makes `python -m poller` the same as `poller`. Signal handlers are installed before the other modules are imported."""

import sys

from poller.commands.run import early_signals
from poller.start_folder import keep_import_path, keep_variables


def main() -> None:
    """The command line."""
    command = sys.argv[1:2]
    if command in (["run"], ["dry-run"]):
        early_signals.install()
    if command == ["run"]:
        from poller.output.queued_output import keep_standard_descriptors

        keep_standard_descriptors()
    keep_import_path()
    keep_variables()
    from poller.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
