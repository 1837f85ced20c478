"""A shop's functions, as an example of what poller calls."""
