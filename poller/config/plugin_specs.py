"""Owns which settings a plug-in gets: those from the configuration file, and those from the daemon.

`check`, preflight and `run` all take them from here, so that the settings that are checked are the ones that are opened. The
daemon's settings take precedence: an entry below `functions` cannot change the function's name, and `source` cannot name another stream.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from poller.domain.plan import LATEST, DaemonPlan, FunctionPlan, MappingPlan, destination_plugin
from poller.plugins import Environment, Registry, opened

SOURCE_GIVEN = ("arn", "mapping")
"""The settings that the daemon gives to sources. A mapping's `source` cannot have them."""


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """One plug-in to open: its kind and name, the settings from the file (`own`), and those from the daemon (`given`).

    An invoker gets only those `given` settings that its model has: not every invoker needs the function's name. So does a source or a
    destination, except for its ARN: most destinations get the event with each notice and need no word about it.
    """

    kind: str
    name: str
    own: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, model: type[BaseModel]) -> dict[str, Any]:
        """The settings for the plug-in's model."""
        return {**self.own, **{name: value for name, value in self.given.items() if self._takes(model, name)}}

    def opened(self, registry: Registry, env: Environment) -> AbstractAsyncContextManager[Any]:
        """Opens the plug-in; raises InvalidConfiguration and the errors of the plug-in."""
        model = registry.plugin(self.kind, self.name).settings
        return opened(registry, self.kind, self.name, self.settings(model), env)

    def _takes(self, model: type[BaseModel], name: str) -> bool:
        return (
            self.kind not in ("invokers", "sources", "destinations")
            or (self.kind != "invokers" and name == "arn")
            or name in model.model_fields
            or (self.kind != "sources" and model.model_config.get("extra") == "allow")
        )


def invoker_spec(
    function: str,
    invoker: str,
    own: Mapping[str, Any],
    *,
    max_concurrency: int | None,
    version: str = LATEST,
) -> PluginSpec:
    """The invoker of one version of a function. It gets `max_concurrency` and the version as settings."""
    given = {"function": function, "max_concurrency": max_concurrency, "function_version": version}
    return PluginSpec("invokers", invoker, own, given)


def source_spec(kind: str, arn: str, own: Mapping[str, Any], *, mapping: str = "") -> PluginSpec:
    """A mapping's source. `mapping` is the mapping's id; empty where it is not known, as in a check of the file."""
    return PluginSpec("sources", kind, own, {"arn": arn, "mapping": mapping})


def destination_spec(
    destination: str,
    *,
    include_payload: bool = False,
    payload_prefix: str | None = None,
    identity: str | None = None,
) -> PluginSpec:
    """The destination with this ARN or URL. Raises ValueError if the text names no plug-in."""
    given: dict[str, Any] = {"arn": destination}
    if identity is not None:
        given["identity"] = identity
    if include_payload:
        given |= {"include_payload": True, "payload_prefix": payload_prefix}
    return PluginSpec("destinations", destination_plugin(destination), given=given)


def store_spec(name: str, settings: Mapping[str, Any]) -> PluginSpec:
    """The daemon's store."""
    return PluginSpec("stores", name, given=settings)


def function_of(plan: FunctionPlan) -> PluginSpec:
    """The invoker of a planned function."""
    return invoker_spec(plan.name, plan.invoker, plan.settings, max_concurrency=plan.max_concurrency)


def version_of(plan: FunctionPlan, number: str) -> PluginSpec:
    """The invoker of a configured version of a planned function."""
    version = plan.versions[number]
    return invoker_spec(
        plan.name, version.invoker, version.settings, max_concurrency=plan.max_concurrency, version=number
    )


def source_of(plan: MappingPlan) -> PluginSpec:
    """The source of a planned mapping."""
    return source_spec(plan.kind.value, plan.source_arn, plan.source_settings, mapping=plan.mapping)


def shared_source_text(plan: MappingPlan) -> str:
    """The source and its settings as a text. Mappings with the same text read the same records, and may read them together."""
    return json.dumps([plan.kind.value, plan.source_arn, plan.source_settings], sort_keys=True, default=str)


def destination_of(plan: MappingPlan) -> PluginSpec | None:
    """The on-failure destination of a planned mapping; None if it has none."""
    discard = plan.discard
    if discard.destination is None:
        return None
    return destination_spec(
        discard.destination,
        include_payload=discard.include_payload,
        payload_prefix=discard.payload_prefix,
        identity=discard.identity,
    )


def resources_of(plan: DaemonPlan) -> PluginSpec | None:
    """What reads and writes custom resources; None if a planned daemon follows none."""
    found = plan.resources
    return None if found is None else PluginSpec("resources", found.plugin, found.settings)


def store_of(plan: DaemonPlan) -> PluginSpec:
    """The store of a planned daemon."""
    return store_spec(plan.store, plan.store_settings)
