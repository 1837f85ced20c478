"""The route of `/v1` that says how many workers there should be."""
