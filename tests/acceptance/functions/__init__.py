"""Functions of real daemons that are called without mappings."""
