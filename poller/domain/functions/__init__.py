"""Values about functions as their callers see them: those that are configured, a call, and its answer."""
