"""Owns the search for identities that are named and not configured."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from poller.config.plugin_settings import NamedPlugin, plugins_in, table
from poller.config_errors.error_messages import SettingError
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry


def unknown_identities(document: Mapping[str, Any], registry: Registry) -> Iterator[SettingError]:
    """Errors for identities that plug-ins are to use and that are not below `identities`."""
    known = sorted(str(name) for name in table(document.get("identities")))
    for part in plugins_in(document):
        name = None if part.name_only else _identity(part, registry)
        if name is not None and name not in known:
            remedy = f"write {' or '.join(known)}" if known else "add it below identities"
            path = part.where(("identity",)) if part.spec.kind != "stores" else part.named_at
            yield SettingError(path, f"identity {name!r} is not below identities", remedy)


def _identity(part: NamedPlugin, registry: Registry) -> str | None:
    """The identity that a plug-in's settings name; None if they name none or are wrong themselves."""
    try:
        model = registry.plugin(part.spec.kind, part.spec.name).settings
        found = getattr(model.model_validate(part.spec.settings(model)), "identity", None)
    except (InvalidConfiguration, ValidationError):
        return None
    return found if isinstance(found, str) else None
