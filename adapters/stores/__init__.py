"""Stores for mappings, leases and checkpoints; each module is one plug-in, found by its entry point."""
