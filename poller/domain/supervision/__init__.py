"""Values about the processes of one daemon: `poller run --processes` has a supervisor and several workers on one machine."""
