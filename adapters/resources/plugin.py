"""Owns custom resources of Kubernetes as a plug-in. It imports lightkube only when it is opened, since that is an extra."""

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module

from adapters.resources.settings import KubernetesSettings
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, Plugin
from poller.resource_ports.resources import MappingResources

NEEDS = "needs lightkube, which cannot be imported"
REMEDY = "install it with: pip install 'esm-poller[kubernetes]'"


def setting_errors(_: KubernetesSettings) -> Iterator[FieldError]:
    """What keeps the daemon from following resources on this machine."""
    if (error := _obstacle()) is not None:
        yield FieldError("", f"{NEEDS} ({error})", REMEDY)


@asynccontextmanager
async def open_kubernetes(settings: KubernetesSettings, _: Environment) -> AsyncGenerator[MappingResources]:
    """Yields the port. It sends nothing yet. Raises InvalidConfiguration without lightkube or without a way to a cluster."""
    if (error := _obstacle()) is not None:
        raise InvalidConfiguration([f"resources: {NEEDS} ({error}); {REMEDY}"]) from error
    from adapters.resources.cluster import KubernetesResources
    from adapters.resources.connection import connection

    found = connection(settings)
    async with found.client:
        yield KubernetesResources(
            found.client,
            namespace=found.namespace,
            selector=settings.selector,
            worker=os.environ.get("HOSTNAME", ""),
        )


def _obstacle() -> ImportError | None:
    try:
        import_module("lightkube")
    except ImportError as error:
        return error
    return None


plugin = Plugin("kubernetes", KubernetesSettings, open_kubernetes, check=setting_errors)
