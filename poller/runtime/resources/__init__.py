"""What follows custom resources while the daemon runs, and writes their status."""
