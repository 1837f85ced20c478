"""Destinations, to which documents of batches and calls are sent. Each module but `checks`, `messages` and `payloads` is one plug-in, found by its entry point."""
