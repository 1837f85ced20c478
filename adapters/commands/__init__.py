"""Commands that need a client library. Each is found through the entry points `poller.commands`."""
