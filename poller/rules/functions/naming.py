"""Owns how a caller of the Invoke API names a function, and by which ARN the function is then called (aws-behaviour#invoke-names).

A function has one ARN. It is the configured one, else that by which a mapping calls it, else one of a region and an account
that stand for nothing. Whoever names the function by an ARN of another region or account means another function.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from poller.domain.arns import Arn, FunctionName
from poller.domain.plan import LATEST, SERVICE_INVOKER, FunctionPlan
from poller.domain.untrusted.texts import line_of

NO_SOURCE = Arn("aws", "lambda", "us-east-1", "000000000000", "function:")
"""Gives region and account to a function that neither its own settings nor a mapping give one."""
NAME_CHARS_MAX = 300
ARN_PARTS = 7
"""A function's ARN has so many parts, and its qualifier is one more."""
QUALIFIERS_DIFFER = "The derived qualifier from the function name does not match the specified qualifier."


class UnknownFunction(Exception):
    """No configured function has this name or ARN."""


class WrongName(Exception):
    """The text names no function, or two qualifiers at once."""


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """A configured function, and the ARN by which it is called, with the qualifier as given."""

    plan: FunctionPlan
    arn: str


def named_function(
    text: str,
    qualifier: str,
    functions: Mapping[str, FunctionPlan],
    mapped: Mapping[str, str],
    *,
    made: Callable[[str], Collection[str]] = lambda _: (),
) -> NamedFunction:
    """The function that `text` names. Raises UnknownFunction and WrongName, with a text for the caller.

    `mapped` has the ARN by which a mapping calls a function, by the function's name. `made` gives the aliases of a function that
    were made through the API.
    """
    try:
        name = FunctionName.parse(text)
    except ValueError:
        shown = line_of(text, chars_max=NAME_CHARS_MAX)
        raise WrongName(
            f"1 validation error detected: Value '{shown}' at 'functionName' failed to satisfy constraint: "
            "Member must be a function's name, partial ARN or ARN"
        ) from None
    if name.qualifier and qualifier and name.qualifier != qualifier:
        raise WrongName(QUALIFIERS_DIFFER)
    qualifier = name.qualifier or qualifier
    plan = functions.get(name.name)
    arn = unqualified_arn(name.name, plan, mapped)
    asked = replace(name, qualifier="").arn(Arn.parse(arn))
    if plan is None or asked != arn or not _has_qualifier(plan, qualifier, made):
        raise UnknownFunction(f"Function not found: {_qualified(asked, qualifier)}")
    return NamedFunction(plan, _qualified(arn, qualifier))


def unqualified_arn(name: str, plan: FunctionPlan | None, mapped: Mapping[str, str]) -> str:
    """The ARN of a function, without a qualifier."""
    if plan is not None and plan.arn is not None:
        return plan.arn
    found = mapped.get(name)
    source = NO_SOURCE if found is None else Arn.parse(found)
    return FunctionName(name).arn(source)


def mapped_arns(arns: Iterable[str]) -> dict[str, str]:
    """The first ARN of each function among those by which mappings call functions, by the function's name."""
    found: dict[str, str] = {}
    for arn in arns:
        found.setdefault(FunctionName.parse(arn).name, arn)
    return found


def qualifier_of(arn: str) -> str:
    """The qualifier at the end of a function's ARN; empty if there is none."""
    parts = arn.split(":", ARN_PARTS)
    return parts[ARN_PARTS] if len(parts) > ARN_PARTS else ""


def _qualified(arn: str, qualifier: str) -> str:
    return f"{arn}:{qualifier}" if qualifier else arn


def _has_qualifier(plan: FunctionPlan, qualifier: str, made: Callable[[str], Collection[str]]) -> bool:
    """Whether a function can have this qualifier. What runs at AWS has versions and aliases of its own there."""
    return (
        qualifier in {"", LATEST}
        or plan.invoker == SERVICE_INVOKER
        or qualifier in plan.versions
        or qualifier in plan.aliases
        or qualifier in made(plan.name)
    )
