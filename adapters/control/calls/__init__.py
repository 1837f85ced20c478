"""The routes of `/v1` about asynchronous calls of functions."""
