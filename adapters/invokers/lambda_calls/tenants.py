"""Owns for which tenant a function with tenant isolation is called, and what is wrong where there is none (aws-behaviour#tenant-isolation).

A call is for one tenant. A message without a usable group is the message's own fault: it fails like one that the function does not
take, and its queue's dead-letter queue gets it. Everything else is a mistake of the configuration, which uses up no receive.
"""

from collections.abc import Mapping
from typing import Any

from adapters.invokers.lambda_calls.queue_events import message_groups
from adapters.invokers.lambda_calls.settings import LambdaSettings, is_tenant
from adapters.invokers.outcomes import failed
from poller.domain.findings import Finding, Severity
from poller.domain.invocations import FunctionError, Unreachable

NO_TENANT = "Function.TenantIdMissing"
NOT_A_TENANT = "Function.TenantIdInvalid"
CHECK = "tenant isolation"
CHECKED_TENANT = "poller-check"
"""For checks of a function whose tenants come from events. Lambda runs nothing for it."""
REFUSED = "InvalidParameterValueException"
"""How Lambda refuses a tenant that is missing, or that the function does not have."""


def tenant_of(settings: LambdaSettings, payload: bytes) -> str | FunctionError | Unreachable | None:
    """The tenant of an event; None if the function has none. An outcome if the event has no tenant that could be called."""
    if settings.tenant_id_from is None:
        return settings.tenant_id
    name, groups = settings.function, message_groups(payload)
    if len(groups) != 1:
        found = f"{len(groups)} message groups in one event" if groups else "the event is not of a queue"
        remedy = (
            "write BatchSize: 1, or one_group_per_batch: true for a FIFO queue"
            if groups
            else "write tenant_id"
        )
        return Unreachable(
            f"functions.{name}.tenant_id_from: {found}, and a call is for one tenant; {remedy}"
        )
    group = groups.pop()
    if group is None and settings.tenant_id is None:
        text = f"the message has no message group; functions.{name}.tenant_id can name a tenant for such messages"
        return failed(NO_TENANT, text)
    if group is not None and not is_tenant(group):
        return failed(
            NOT_A_TENANT, "the message group has characters that Lambda does not allow in tenant ids"
        )
    return group or settings.tenant_id


def remedy_for_refusal(settings: LambdaSettings) -> str:
    """What to look at when Lambda refuses a parameter of a call."""
    if settings.names_tenants:
        return "has the function tenant isolation? only then may tenant_id or tenant_id_from be set"
    return "a function with tenant isolation needs tenant_id or tenant_id_from"


def isolation_findings(settings: LambdaSettings, configuration: Mapping[str, Any], arn: str) -> list[Finding]:
    """Compares an answer of GetFunctionConfiguration with the settings. Nothing is found where both have no tenants."""
    tenancy = configuration.get("TenancyConfig")
    isolated = bool(tenancy.get("TenantIsolationMode")) if isinstance(tenancy, Mapping) else False
    if isolated and not settings.names_tenants:
        text, remedy = (
            f"{arn} has tenant isolation, so that each call needs a tenant",
            "write tenant_id or tenant_id_from",
        )
        return [Finding(CHECK, Severity.PROBLEM, text, f"{remedy} at functions.{settings.function}")]
    if settings.names_tenants and not isolated:
        text = f"{arn} has no tenant isolation, so that Lambda refuses calls for a tenant"
        remedy = f"remove tenant_id and tenant_id_from at functions.{settings.function}"
        return [Finding(CHECK, Severity.PROBLEM, text, remedy)]
    return [Finding(CHECK, Severity.OK)] if isolated else []
