"""The commands that do something to what runs: retry, reset, skip, pause, resume, and `poller operations`. They talk to a daemon's API."""
