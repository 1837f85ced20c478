"""Owns the settings of custom resources in Kubernetes, as the plug-in gets them. Their form is checked by poller.config.sections.resources."""

from pydantic import BaseModel, ConfigDict


class KubernetesSettings(BaseModel):
    """Which resources are followed, and how the API server is reached.

    Without `namespace` it is that of the service account or of the kubeconfig. `selector` chooses by labels, as kubectl's `-l` does.
    Without `kubeconfig` the service account of the pod is used, or else the file that KUBECONFIG names, or `~/.kube/config`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: str | None = None
    selector: str = ""
    kubeconfig: str | None = None
    context: str | None = None
