"""Values of mappings that are custom resources of Kubernetes: the resource, its status, its events."""
