"""Where custom resources are kept: Kubernetes."""
