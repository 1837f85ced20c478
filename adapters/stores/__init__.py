"""Stores for mappings, leases and checkpoints; each plug-in is found by its entry point.

What may live here: one package a database, and what stores have in common: conflicts, stored rows, options of URLs.
"""
