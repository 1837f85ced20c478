"""Python handlers: how one is found, called, and kept from disturbing the daemon or others.

What may live here: what concerns a user's Python code, in this process or in a child process.
"""
