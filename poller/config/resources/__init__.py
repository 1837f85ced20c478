"""Custom resources as users write them: how a spec becomes a mapping, and the definition of the resource for Kubernetes."""
