"""The Protocols between the engine and the cluster in which custom resources are kept."""
