"""The commands of `poller`. `poller.cli` declares their options and imports a command's module when it is called.

What may live here: one module or package for each command. Together with `poller.cli` this is the composition root: the only
place where settings, plug-ins and the daemon are put together.
"""
