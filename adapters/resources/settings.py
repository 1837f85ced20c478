"""Owns the settings of custom resources in Kubernetes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from poller.config.field_types import FilePath

NAMESPACE = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SELECTOR_CHARS_MAX = 2048


class KubernetesSettings(BaseModel):
    """Which resources are followed, and how the API server is reached.

    Without `namespace` it is that of the service account or of the kubeconfig. `selector` chooses by labels, as kubectl's `-l` does.
    Without `kubeconfig` the service account of the pod is used, or else the file that KUBECONFIG names, or `~/.kube/config`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: Annotated[str, StringConstraints(pattern=NAMESPACE)] | None = None
    selector: Annotated[str, Field(max_length=SELECTOR_CHARS_MAX)] = ""
    kubeconfig: FilePath | None = None
    context: Annotated[str, Field(min_length=1, max_length=253)] | None = None
