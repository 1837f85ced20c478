"""Owns the settings of custom resources: whether they are followed, where, and which of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from poller.config.field_types import FilePath
from poller.config.mapping import Flag
from poller.config.plugin_specs import PluginSpec
from poller.config.sections.section import Section
from poller.domain.plan import ResourcePlan

NAMESPACE = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SELECTOR_CHARS_MAX = 2048
CONTEXT_CHARS_MAX = 253
UID = r"^[0-9A-Za-z-]{1,128}$"


class Resources(Section):
    """Custom resources that are followed as mappings.

    `namespace` None: that of the service account or of the kubeconfig. `selector` chooses by labels, as kubectl's `-l` does. `kubeconfig`
    None: the service account of the pod, or else the file that KUBECONFIG names, or `~/.kube/config`.
    """

    enabled: Flag = False
    namespace: Annotated[str, StringConstraints(pattern=NAMESPACE)] | None = None
    selector: Annotated[str, Field(max_length=SELECTOR_CHARS_MAX)] = ""
    kubeconfig: FilePath | None = None
    context: Annotated[str, Field(min_length=1, max_length=CONTEXT_CHARS_MAX)] | None = None
    forget_namespace: Annotated[str, StringConstraints(pattern=UID)] | None = None

    @property
    def plan(self) -> ResourcePlan | None:
        """The same for the daemon; None if no resources are followed."""
        if not self.enabled:
            return None
        own = self.model_dump(mode="json", exclude_none=True, exclude={"enabled", "forget_namespace"})
        return ResourcePlan(settings=own, forget_namespace=self.forget_namespace or "")


def resources_in(document: Mapping[str, Any]) -> list[PluginSpec]:
    """What a daemon with this document opens to follow resources, if it asks for that as it should."""
    try:
        plan = Resources.model_validate(document.get("resources") or {}).plan
    except ValidationError:
        return []
    return [] if plan is None else [PluginSpec("resources", plan.plugin, plan.settings)]
