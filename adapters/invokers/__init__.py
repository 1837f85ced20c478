"""Ways to call a function; each module is one plug-in, found by its entry point."""
