"""Ten mappings on one busy stream that share its reads, beside ten that read for themselves.

python -m benchmarks.shared_reads [--seconds 15] [--json FILE]
"""

from benchmarks.command import command
from benchmarks.shared_reads.measuring import run, table

SECONDS = 15.0

if __name__ == "__main__":
    command("shared_reads", run, table, seconds=SECONDS)
