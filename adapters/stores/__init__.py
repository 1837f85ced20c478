"""Stores for mappings, leases and checkpoints; each plug-in is found by its entry point.

What may live here: one package per database, and what the stores share: conflicts, stored rows and URL options.
"""
