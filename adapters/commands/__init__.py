"""Commands that need a library which speaks to the outside; each is found through the entry points `poller.commands`."""
