"""Rules of versions, aliases and shifts."""
