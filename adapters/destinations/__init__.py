"""Destinations, to which failure documents are sent. Each module but `checks` and `payloads` is one plug-in, found by its entry point."""
