"""Functions that are called by the Invoke API: they are kept open between calls, and share slots, rates and breakers with mappings."""
