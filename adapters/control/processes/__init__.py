"""What the port answers for a daemon of several processes: probes and metrics of all of them."""
