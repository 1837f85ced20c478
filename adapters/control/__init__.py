"""The HTTP server; each module is one plug-in, found by its entry point."""
