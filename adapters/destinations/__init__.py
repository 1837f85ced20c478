"""Places that on-failure documents go to; each module is one plug-in, found by its entry point."""
