"""Owns the way to a cluster: the service account of the pod, or a kubeconfig, as lightkube reads them."""

from dataclasses import dataclass

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from adapters.resources.settings import KubernetesSettings
from poller.domain.errors import InvalidConfiguration
from poller.start_folder import from_start_folder

REMEDY = "run the daemon in a pod with a service account, or name a kubeconfig at resources.kubeconfig"

_UNUSABLE = (AttributeError, KeyError, TypeError, ValueError)
"""What lightkube raises for a kubeconfig of another shape: it takes its members without a look at their types."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that is not open yet, and the namespace that is followed."""

    client: httpx2.AsyncClient
    namespace: str


def connection(settings: KubernetesSettings) -> Connection:
    """The way to the cluster. Raises InvalidConfiguration if the files that say it are missing or unusable."""
    try:
        found = _config(settings)
        if found.user is None:
            raise ConfigError(f"the context {found.context_name} has no user")
        client = AsyncClient(found, ConnectionParams(timeout=None))
    except (ConfigError, OSError, *_UNUSABLE, msgspec.ValidationError, yaml.YAMLError) as error:
        wrong = f"{type(error).__name__}: {error}"
        raise InvalidConfiguration([f"resources: no way to a cluster ({wrong}); {REMEDY}"]) from error
    return Connection(client, settings.namespace or found.namespace.strip())


def _config(settings: KubernetesSettings) -> SingleConfig:
    files = (
        KubeConfig.from_env()
        if settings.kubeconfig is None
        else KubeConfig.from_file(from_start_folder(settings.kubeconfig))
    )
    found = files.get(settings.context)
    if found is None:
        raise ConfigError("there is no current context")
    return found
