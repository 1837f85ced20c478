"""What the mappings of one daemon do to each other: how late records are under load while some mappings are in trouble."""
