"""Functions to start from; run the daemon where `examples` lies and name them as `examples.functions.MODULE:NAME`."""
