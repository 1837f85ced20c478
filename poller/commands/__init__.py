"""What the commands of `poller` do; `poller.cli` declares their options and imports these when one is called.

What may live here: one module or package a command. With `poller.cli` this is the composition root: only here are settings,
plug-ins and the daemon put together.
"""
