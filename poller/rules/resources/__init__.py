"""Rules for mappings that are custom resources: what becomes of a resource, and what its status says. Pure functions."""
