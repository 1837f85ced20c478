"""A Kubernetes of one node on this machine, from Debian's packages: what starts it, and what ends it again."""
