"""Python handlers: how one is found and called, and how it is kept from disturbing the daemon and other functions.

What may live here: everything about a user's Python code, in this process or in a child process.
"""
