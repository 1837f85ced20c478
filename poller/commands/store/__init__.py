"""The command `poller store`, which prepares and checks a store before a daemon uses it.

What may live here: its options and help, and what it does.
"""
