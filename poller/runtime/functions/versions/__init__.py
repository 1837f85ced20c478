"""Versions and aliases of functions: their state in the store, the calls by an alias, and the shifts between versions.

`poller.runtime.mappings.components` puts a VersionedInvoker around a function that has versions. So nothing here imports it.
"""
