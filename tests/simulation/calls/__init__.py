"""Worlds of asynchronous calls and of versions: what they do, what must hold in them, and the sweep of many seeds."""
