"""Protocols that a source may have beside those of `poller.ports`. The rules that hold there hold here, too."""
