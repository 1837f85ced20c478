"""Owns the interface between Lambda's API and the daemon for how asynchronous calls of functions are tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from poller.domain.functions.queued_calls import AGE_S_MAX, RETRIES_MAX, AsyncPolicy
from poller.domain.records import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeConfigView:
    """How asynchronous calls of one function, or of one qualifier, are tried. `arn` has a qualifier, $LATEST where there is none.

    `parameters` has the members that were given, with AWS's names.
    """

    arn: str
    parameters: Mapping[str, Any]
    modified: Epoch


class InvokeConfigControl(Protocol):
    """Shows and changes how asynchronous calls are tried. Every method raises ApiError."""

    async def put(
        self, function: str, qualifier: str, parameters: Mapping[str, Any], *, merge: bool
    ) -> InvokeConfigView:
        """Stores the parameters, in place of those before, or with `merge` over them."""
        ...

    def get(self, function: str, qualifier: str) -> InvokeConfigView:
        """The configuration of a function's qualifier."""
        ...

    def list(self, function: str) -> Sequence[InvokeConfigView]:
        """All configurations of a function, by qualifier."""
        ...

    async def delete(self, function: str, qualifier: str) -> None:
        """Removes the configuration of a function's qualifier."""
        ...


def policy_of(
    parameters: Mapping[str, Any], *, dead_letter: str | None, identity: str | None = None
) -> AsyncPolicy:
    """The policy of valid parameters. Dead-letter target and identity are the function's."""
    targets = parameters.get("DestinationConfig") or {}
    return AsyncPolicy(
        retries_max=parameters.get("MaximumRetryAttempts", RETRIES_MAX),
        age_s_max=parameters.get("MaximumEventAgeInSeconds", AGE_S_MAX),
        on_success=(targets.get("OnSuccess") or {}).get("Destination"),
        on_failure=(targets.get("OnFailure") or {}).get("Destination"),
        dead_letter=dead_letter,
        identity=identity,
    )


def parameters_of(policy: AsyncPolicy) -> dict[str, Any]:
    """The parameters that a policy stands for."""
    ends = {"OnSuccess": policy.on_success, "OnFailure": policy.on_failure}
    return {
        "MaximumRetryAttempts": policy.retries_max,
        "MaximumEventAgeInSeconds": policy.age_s_max,
        "DestinationConfig": {
            end: {} if target is None else {"Destination": target} for end, target in ends.items()
        },
    }
