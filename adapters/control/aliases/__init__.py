"""Versions and aliases of functions: Lambda's operations on them, and the routes of /v1 that shift an alias from version to version."""
