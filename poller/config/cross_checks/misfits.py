"""Owns the search for mappings whose events their functions cannot take."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from poller.config.mapping import source_kind
from poller.config.plugin_settings import function_name, listed, plugins_in, table
from poller.config_errors.error_messages import FieldError, SettingError
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import EventContent, SourceKind
from poller.plugins import Registry

type _Finder = Callable[[EventContent], Iterable[FieldError]]


def misfit_errors(document: Mapping[str, Any], registry: Registry) -> Iterator[SettingError]:
    """What keeps mappings from calling their functions, as the functions' plug-ins see it. Wrong settings have errors of their own."""
    finders: dict[str, list[_Finder]] = {}
    for name, found in _misfit_finders(document, registry):
        finders.setdefault(name, []).append(found)
    for index, each in enumerate(listed(document.get("mappings"))):
        mapping = table(each)
        content = _event_content(mapping)
        if content is None:
            continue
        for finder in finders.get(function_name(mapping.get("FunctionName")), ()):
            yield from (SettingError.of(error, ("mappings", index)) for error in finder(content))


def _misfit_finders(document: Mapping[str, Any], registry: Registry) -> Iterator[tuple[str, _Finder]]:
    """For each version of a function whose plug-in looks at mappings: the function's name, and what finds errors in a mapping's events."""
    for part in plugins_in(document):
        if part.spec.kind != "invokers" or part.name_only:
            continue
        try:
            plugin = registry.plugin(part.spec.kind, part.spec.name)
            if plugin.misfits is not None:
                model = plugin.settings.model_validate(part.spec.settings(plugin.settings))
                yield str(part.spec.given["function"]), partial(plugin.misfits, model)
        except (InvalidConfiguration, ValidationError):
            continue


def _event_content(mapping: Mapping[str, Any]) -> EventContent | None:
    """What the mapping's events may hold; None if its source is not known."""
    arn = mapping.get("EventSourceArn")
    try:
        kind = source_kind(arn) if isinstance(arn, str) else None
    except ValueError:
        kind = None
    if kind is None:
        return None
    fifo = kind is SourceKind.SQS and str(arn).endswith(".fifo")
    single = str(mapping.get("BatchSize")) in {"1", "1.0"}
    split = fifo and str(mapping.get("one_group_per_batch")).lower() == "true"
    tumbling = str(mapping.get("TumblingWindowInSeconds") or "0") not in {"0", "0.0"}
    return EventContent(kind, one_group=single or split, fifo=fifo, single=single, tumbling=tumbling)
