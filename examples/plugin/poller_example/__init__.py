"""Two plug-ins for poller, each a module with a `plugin` that an entry point names."""
