"""Stream and queue sources; each module is one plug-in, found by its entry point."""
