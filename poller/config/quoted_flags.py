"""Owns the search for flags that a file gives as texts: "false" in quotes, or yes, which is a text in YAML 1.2.

Models of settings accept some texts as flags, because environment variables are always texts. In a file such a text is probably a
mistake, and it would not be noticed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAliasType, get_args

from poller.config.plugin_settings import plugins_in
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.config_errors.error_messages import SettingError
from poller.config_errors.known_names import Path, members, models_of
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry

_OPEN = frozenset({"functions", "mappings"})
"""Tables that are checked item by item, each with a model of its own."""
_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})


def quoted_flags(document: Mapping[str, Any], registry: Registry | None) -> Iterator[SettingError]:
    """An error for every flag that the file gives as a text."""
    yield from _of(Settings, document, ())
    for index, mapping in enumerate(_items(document.get("mappings"))):
        yield from _of(FileMapping, mapping, ("mappings", index))
    for part in plugins_in(document) if registry is not None else ():
        if part.spec.kind in ("invokers", "sources") and registry is not None:
            own = {name: value for name, value in part.spec.own.items() if name not in part.elsewhere}
            yield from _of(_model(registry, part.spec.kind, part.spec.name), own, part.under)


def _of(model: object, table: object, place: Path) -> Iterator[SettingError]:
    known = members([model])
    for name, value in table.items() if isinstance(table, dict) else ():
        if name not in known or (not place and name in _OPEN):
            continue
        if isinstance(value, str) and _is_flag(known[name]):
            if (meant := _meant(value)) is not None:
                yield SettingError(
                    (*place, name), "a text, not true or false", f"write {meant} without quotes"
                )
        else:
            for inner in models_of(known[name]):
                yield from _of(inner, value, (*place, name))


def _meant(text: str) -> str | None:
    """The flag that a text means; None if no model accepts the text as a flag, so that the model reports it."""
    word = text.strip().lower()
    return "true" if word in _TRUE else "false" if word in _FALSE else None


def _is_flag(annotation: object) -> bool:
    plain = _plain(annotation)
    return bool in plain and str not in plain


def _plain(annotation: object) -> list[object]:
    if isinstance(annotation, TypeAliasType):
        return _plain(annotation.__value__)
    inner = [each for arg in get_args(annotation) for each in _plain(arg)]
    return inner or [annotation]


def _model(registry: Registry, kind: str, name: str) -> object:
    try:
        return registry.plugin(kind, name).settings
    except InvalidConfiguration:
        return FunctionEntry


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []
