"""Owns the search for mappings that name a version or an alias which their function does not have."""

from collections.abc import Iterator, Mapping
from typing import Any

from poller.config.plugin_settings import listed, table
from poller.config.settings import Settings
from poller.config_errors.error_messages import SettingError
from poller.domain.arns import FunctionName
from poller.domain.plan import LATEST, SERVICE_INVOKER

NAMES_SHOWN_MAX = 20


def unknown_qualifiers(document: Mapping[str, Any]) -> Iterator[SettingError]:
    """Errors for qualifiers of functions that have versions or aliases here. What runs at AWS may have others there."""
    functions = table(document.get("functions"))
    usual = document.get("default_invoker", Settings.model_fields["default_invoker"].default)
    for index, each in enumerate(listed(document.get("mappings"))):
        name = _name(table(each).get("FunctionName"))
        entry = table(functions.get(name.name)) if name is not None else {}
        known = {LATEST} | {str(key) for part in ("versions", "aliases") for key in table(entry.get(part))}
        if name is None or name.qualifier in {"", *known} or len(known) == 1:
            continue
        if (entry.get("invoker") or usual) != SERVICE_INVOKER:
            shown = ", ".join(sorted(known)[:NAMES_SHOWN_MAX])
            wrong = f"{name.name} has no version or alias {name.qualifier}"
            remedy = f"write one of {shown}, or add it to functions.{name.name}.aliases"
            yield SettingError(("mappings", index, "FunctionName"), wrong, remedy)


def _name(text: object) -> FunctionName | None:
    try:
        return FunctionName.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
