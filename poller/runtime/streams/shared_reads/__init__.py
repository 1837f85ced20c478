"""The reads that several mappings of one stream share."""
