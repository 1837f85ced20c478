"""Owns how settings become the plan of one daemon."""

import socket
import uuid
from collections.abc import Mapping
from dataclasses import replace

from poller.config.field_types import store_name
from poller.config.mapping import FunctionIdentity, as_written, plan
from poller.config.sections.versions import VersionEntry
from poller.config.settings import FileMapping, FileMembers, FunctionEntry, Settings, merged_settings
from poller.domain.functions.queued_calls import AsyncPolicy
from poller.domain.functions.versions import VersionPlan
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, OnDestinationFailure
from poller.domain.policies import BreakerPolicy, QueuePolicy, RatePolicy
from poller.domain.records import MappingId, WorkerId


def daemon_plan(settings: Settings) -> DaemonPlan:
    """The plan of a daemon with these settings. A worker without a configured name gets a unique one."""
    mappings = tuple(_mapping_plan(mapping, settings) for mapping in settings.mappings)
    functions = {name: _function_plan(name, entry, settings) for name, entry in settings.functions.items()}
    for mapping in mappings:
        if mapping.function not in functions:
            functions[mapping.function] = _function_plan(mapping.function, FunctionEntry(), settings)
    return DaemonPlan(
        worker=WorkerId(settings.worker or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"),
        store=store_name(settings.store),
        store_settings={"url": settings.store},
        functions=functions,
        mappings=mappings,
        documents={
            each.mapping: as_written(mapping)
            for each, mapping in zip(mappings, settings.mappings, strict=True)
        },
        default_invoker=settings.default_invoker,
        on_destination_failure=settings.on_destination_failure,
        tuning=settings.tuning,
        resources=settings.resources.plan,
    )


def _mapping_plan(mapping: FileMapping, settings: Settings) -> MappingPlan:
    return plan_with_own_fields(
        mapping,
        settings.function_identities,
        identity=MappingId(mapping.UUID) if mapping.UUID else None,
        on_destination_failure=settings.on_destination_failure,
    )


def plan_with_own_fields(
    mapping: FileMembers,
    functions: Mapping[str, FunctionIdentity],
    *,
    identity: MappingId | None,
    on_destination_failure: OnDestinationFailure,
) -> MappingPlan:
    """The plan of a mapping that may have the configuration file's own fields. The given `on_destination_failure` is the default."""
    found = plan(
        mapping,
        functions,
        identity=identity,
        on_destination_failure=mapping.on_destination_failure or on_destination_failure,
        include_payload=bool(mapping.include_payload),
        payload_prefix=mapping.payload_prefix,
        source_settings=mapping.source,
        queue=_queue_policy(mapping),
    )
    stream = replace(found.stream, shared_reads=mapping.shared_reads is not False)
    return replace(
        found, discard=replace(found.discard, identity=mapping.destination_identity), stream=stream
    )


def _queue_policy(mapping: FileMembers) -> QueuePolicy:
    return QueuePolicy(
        extend_visibility=mapping.extend_visibility is not False,
        one_group_per_batch=bool(mapping.one_group_per_batch),
        group_aware_failures=bool(mapping.group_aware_failures),
        retry_backoff=None if mapping.retry_backoff is None else mapping.retry_backoff.policy,
    )


def _function_plan(name: str, entry: FunctionEntry, settings: Settings) -> FunctionPlan:
    return FunctionPlan(
        name=name,
        invoker=entry.invoker or settings.default_invoker,
        settings=dict(entry.model_extra or {}),
        timeout_s=entry.timeout_s,
        max_concurrency=entry.max_concurrency,
        arn=entry.arn,
        role=entry.role or "",
        rate=None if entry.rate is None else RatePolicy(**entry.rate.model_dump()),
        breaker=None if entry.breaker is None else BreakerPolicy(**entry.breaker.model_dump()),
        async_policies=_async_policies(entry),
        dead_letter=entry.dead_letter,
        versions={
            number: _version_plan(number, version, entry, settings)
            for number, version in entry.versions.items()
        },
        aliases={alias: each.plan for alias, each in entry.aliases.items()},
    )


def _version_plan(
    number: str, version: VersionEntry, entry: FunctionEntry, settings: Settings
) -> VersionPlan:
    """The version with its settings laid over the function's own, which are of use for the same invoker only."""
    usual = entry.invoker or settings.default_invoker
    invoker, own = version.invoker or usual, dict(version.model_extra or {})
    return VersionPlan(
        number=number,
        invoker=invoker,
        settings=merged_settings(entry.model_extra or {}, own) if invoker == usual else own,
        timeout_s=version.timeout_s,
        description=version.description,
    )


def _async_policies(entry: FunctionEntry) -> dict[str, AsyncPolicy]:
    """How asynchronous calls are tried, by qualifier; that of "" is for calls without one."""
    configs = {"": entry.event_invoke_config, **entry.event_invoke_configs}
    own = (entry.model_extra or {}).get("identity")
    identity = own if isinstance(own, str) else None
    return {
        qualifier: config.policy(entry.dead_letter, identity)
        for qualifier, config in configs.items()
        if config is not None
    }
