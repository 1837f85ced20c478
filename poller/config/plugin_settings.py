"""Owns the list of plug-ins that a settings document uses, and the errors in their settings.

The document is read as it was written. So errors in other parts of it do not prevent these checks.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model

from poller.config.field_types import listen_address, object_prefix, store_name
from poller.config.mapping import source_kind
from poller.config.plugin_specs import PluginSpec, destination_spec, invoker_spec, source_spec, store_spec
from poller.config.sections.resources import resources_in
from poller.config.sections.tracing import tracers
from poller.config.sections.versions import VersionEntry, own_settings
from poller.config.settings import FunctionEntry, Settings, merged_settings
from poller.config_errors.error_messages import LINES_MAX, FieldError, SettingError, complaints, moved
from poller.config_errors.known_names import Path
from poller.domain.arns import FunctionName
from poller.domain.errors import InvalidConfiguration
from poller.plugins import GROUPS, Plugin, Registry

ROUNDS_MAX = 5
"""How often one plug-in's settings are validated. Each round leaves out the settings with errors, and may find further errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPlugin:
    """One plug-in that the document uses: the path of its name in the file, and the path of its settings (`under`).

    `elsewhere` has the paths of settings that are not below `under`. A setting that the daemon gives and that has no path there
    cannot be written by users. `beside` are names among the settings that do not belong to the plug-in.
    With `name_only` no mapping uses the plug-in yet, and only its name is checked.
    """

    spec: PluginSpec
    named_at: Path
    under: Path
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    name_only: bool = False
    beside: tuple[str, ...] = ()

    @property
    def hidden(self) -> frozenset[str]:
        """Settings that the daemon gives and that users cannot write."""
        return frozenset(self.spec.given.keys() - self.elsewhere.keys())

    def where(self, path: Path) -> Path:
        """The path in the file of one of the plug-in's settings."""
        if path and path[0] in self.elsewhere:
            return self.elsewhere[str(path[0])] + path[1:]
        return self.under + path


def plugins_in(document: Mapping[str, Any]) -> Iterator[NamedPlugin]:
    """Every plug-in that a daemon with this document opens, as far as the document is valid."""
    yield _control(document)
    for part in (_store, _functions, _call_destinations, _mappings):
        yield from part(document)
    for place, specs in (("resources", resources_in(document)), ("tracing", tracers(document))):
        yield from (NamedPlugin(spec=each, named_at=(place,), under=(place,)) for each in specs)


def plugin_errors(part: NamedPlugin, registry: Registry) -> list[SettingError]:
    """The errors in a plug-in's name and settings. Opens nothing and imports no user code."""
    try:
        plugin = registry.plugin(part.spec.kind, part.spec.name)
    except InvalidConfiguration as error:
        texts = [problem.partition("; ") for problem in error.problems]
        return [SettingError(part.named_at, wrong, remedy) for wrong, _, remedy in texts]
    if part.name_only:
        return []
    found = [_known_elsewhere(each, part, registry) for each in _of_model(plugin, part)]
    return moved(found, part.where)


def _known_elsewhere(complaint: SettingError, part: NamedPlugin, registry: Registry) -> SettingError:
    """The error with a better remedy, if another invoker has the setting that this one does not know."""
    if part.spec.kind != "invokers" or complaint.known is None or len(complaint.path) != 1:
        return complaint
    knowing = [name for name in _invokers() if complaint.path[0] in _settings_of(name, registry)]
    if not knowing or complaint.path[0] in part.hidden:
        return complaint
    chosen = f"write invoker: {' or '.join(knowing)}"
    if part.named_at[-1] == "invoker":
        return replace(
            complaint, remedy=f"remove it, or {chosen}, which has it; invoker: {part.spec.name} has not"
        )
    return replace(
        complaint, remedy=f"{chosen}, which has it; without an invoker, {part.spec.name} calls the function"
    )


def _invokers() -> list[str]:
    return sorted(point.name for point in entry_points(group=GROUPS["invokers"]))


def _settings_of(invoker: str, registry: Registry) -> Collection[str]:
    try:
        return list(registry.plugin("invokers", invoker).settings.model_fields)
    except InvalidConfiguration:
        return ()


def _control(document: Mapping[str, Any]) -> NamedPlugin:
    # A wrong address is reported by the check of the daemon's own settings.
    listen = document.get("listen")
    usable = listen if _is_address(listen) else Settings.model_fields["listen"].default
    own = {"listen": usable, "api": table(document.get("api"))}
    return NamedPlugin(spec=PluginSpec("control", "http", own), named_at=(), under=())


def _store(document: Mapping[str, Any]) -> Iterator[NamedPlugin]:
    url = document.get("store", Settings.model_fields["store"].default)
    try:
        name = store_name(url) if isinstance(url, str) else ""
    except ValueError:
        name = ""
    if name:
        place: Path = ("store",)
        yield NamedPlugin(
            spec=store_spec(name, {"url": url}), named_at=place, under=place, elsewhere={"url": place}
        )


def _functions(document: Mapping[str, Any]) -> Iterator[NamedPlugin]:
    default = document.get("default_invoker", Settings.model_fields["default_invoker"].default)
    entries = table(document.get("functions"))
    if isinstance(default, str):
        yield NamedPlugin(
            spec=PluginSpec("invokers", default), named_at=("default_invoker",), under=(), name_only=True
        )
    named = {str(name): entry for name, entry in entries.items() if isinstance(entry, dict)}
    for mapping in listed(document.get("mappings")):
        name = function_name(table(mapping).get("FunctionName"))
        if name and name not in entries:
            named[name] = {}
    for name, entry in named.items():
        invoker = entry.get("invoker") or default
        if isinstance(invoker, str):
            yield _function(name, entry, invoker)
            yield from _versions(name, entry, invoker)


def _function(name: str, entry: Mapping[str, Any], invoker: str) -> NamedPlugin:
    place: Path = ("functions", name)
    own = {key: value for key, value in entry.items() if key not in FunctionEntry.model_fields}
    # A wrong number is reported by the check of the daemon's own settings.
    limit = entry.get("max_concurrency")
    usable = limit if isinstance(limit, int) else None
    return NamedPlugin(
        spec=invoker_spec(name, invoker, own, max_concurrency=usable),
        named_at=(*place, "invoker") if entry.get("invoker") else ("default_invoker",),
        under=place,
        beside=tuple(FunctionEntry.model_fields),
    )


def _versions(name: str, entry: Mapping[str, Any], usual: str) -> Iterator[NamedPlugin]:
    """The invokers of a function's versions. What a version takes over from the function has its place there."""
    function = _function(name, entry, usual)
    for number, each in table(entry.get("versions")).items():
        version, place = table(each), (*function.under, "versions", str(number))
        invoker = version.get("invoker") or usual
        if not isinstance(invoker, str):
            continue
        own, below = own_settings(version), function.spec.own if invoker == usual else {}
        limit = function.spec.given["max_concurrency"]
        yield NamedPlugin(
            spec=invoker_spec(
                name, invoker, merged_settings(below, own), max_concurrency=limit, version=str(number)
            ),
            named_at=(*place, "invoker") if version.get("invoker") else function.named_at,
            under=place,
            elsewhere={each: (*function.under, each) for each in below if each not in own},
            beside=tuple(VersionEntry.model_fields),
        )


def _call_destinations(document: Mapping[str, Any]) -> Iterator[NamedPlugin]:
    """The destinations of the functions' asynchronous calls."""
    for name, each in table(document.get("functions")).items():
        entry, place = table(each), ("functions", str(name))
        configs: dict[Path, Any] = {(*place, "event_invoke_config"): entry.get("event_invoke_config")}
        for qualifier, config in table(entry.get("event_invoke_configs")).items():
            configs[*place, "event_invoke_configs", str(qualifier)] = config
        own: Path = (*place, "identity")
        yield from _call_destination(entry.get("dead_letter"), (*place, "dead_letter"), entry, own)
        for path, config in configs.items():
            named = table(config)
            whose, at = (named, (*path, "identity")) if named.get("identity") else (entry, own)
            for end, target in table(named.get("DestinationConfig")).items():
                where: Path = (*path, "DestinationConfig", str(end), "Destination")
                yield from _call_destination(table(target).get("Destination"), where, whose, at)


def _call_destination(
    destination: object, at: Path, whose: Mapping[str, Any], identity_at: Path
) -> Iterator[NamedPlugin]:
    """The destination with this ARN or URL, as the identity that `whose` names; nothing for what the check of the daemon's own settings reports."""
    identity = whose.get("identity")
    # A destination at a URL needs none, while others of the function may.
    named = identity if isinstance(identity, str) and str(destination).startswith("arn:") else None
    try:
        spec = destination_spec(destination, identity=named) if isinstance(destination, str) else None
    except ValueError:
        spec = None
    if spec is not None:
        yield NamedPlugin(spec=spec, named_at=at, under=at, elsewhere={"arn": at, "identity": identity_at})


def _mappings(document: Mapping[str, Any]) -> Iterator[NamedPlugin]:
    for index, each in enumerate(listed(document.get("mappings"))):
        mapping = table(each)
        place: Path = ("mappings", index)
        arn = mapping.get("EventSourceArn")
        try:
            kind = source_kind(arn).value if isinstance(arn, str) else ""
        except ValueError:
            kind = ""
        if kind:
            at: Path = (*place, "EventSourceArn")
            spec = source_spec(kind, str(arn), table(mapping.get("source")))
            yield NamedPlugin(spec=spec, named_at=at, under=(*place, "source"), elsewhere={"arn": at})
        if (destination := _destination(mapping)) is not None:
            at = (*place, "DestinationConfig", "OnFailure", "Destination")
            beside = {name: (*place, name) for name in ("include_payload", "payload_prefix")}
            beside["identity"] = (*place, "destination_identity")
            yield NamedPlugin(spec=destination, named_at=at, under=at, elsewhere={"arn": at, **beside})


def _of_model(plugin: Plugin[Any, Any], part: NamedPlugin) -> list[SettingError]:
    """The errors that the plug-in's model and its `check` find."""
    stray = [
        SettingError((name,), "unknown setting", "", known=())
        for name in part.spec.own
        if name in part.hidden
    ]
    stray += _unused(plugin, part)
    look = LenientCheck(plugin.settings, part.spec.settings(plugin.settings))
    look.rounds()
    if plugin.check is not None:
        look.checked(plugin.check)
    known = {*plugin.settings.model_fields, *part.beside} - (part.spec.given.keys() - set(part.beside))
    return [_named(each, tuple(sorted(known))) for each in (*stray, *look.found)]


def _unused(plugin: Plugin[Any, Any], part: NamedPlugin) -> Iterator[SettingError]:
    """Errors for what a destination does not need: a place for large events if it gets every event, an identity if it is not AWS's."""
    prefix = "payload_prefix"
    if part.spec.given.get(prefix) and prefix not in part.spec.settings(plugin.settings):
        wrong = (
            f"has no effect: a destination of the plug-in {plugin.name} gets the whole event with each notice"
        )
        yield SettingError((prefix,), wrong, "remove it")
    if part.spec.given.get("identity") and "identity" not in part.spec.settings(plugin.settings):
        wrong = f"has no effect: the plug-in {plugin.name} calls no service of AWS"
        yield SettingError(("identity",), wrong, "remove it")


def _named(complaint: SettingError, known: tuple[str, ...]) -> SettingError:
    """The error; for an unknown name at the top level it lists all known names."""
    if complaint.known is None or len(complaint.path) != 1:
        return complaint
    return SettingError(complaint.path, complaint.wrong, complaint.remedy, known=known)


class LenientCheck:
    """Validates settings by a model and goes on after errors, to find errors that others hide.

    `found` has the errors. `model` has the valid settings; required settings that are absent are missing in it. `validated_by` is
    the model with validators around it, if there are any.
    """

    def __init__(self, model: type, given: Mapping[str, Any], *, validated_by: Any = None) -> None:
        self.found: list[SettingError] = []
        self.model: Any = None
        self._kind = model
        self._validated_by = validated_by or model
        self._given = dict(given)
        self._wrong: set[Path] = set()
        self._missing: set[str] = set()

    def rounds(self) -> None:
        """Validates until no new error is found."""
        kind, given = self._validated_by, self._given
        for _ in range(ROUNDS_MAX):
            try:
                read = TypeAdapter(kind).validate_python(given)
            except ValidationError as error:
                new = self.add(complaints(error, self._kind))
            else:
                for name in self._missing:
                    read.__dict__.pop(name, None)
                self.model = read
                return
            if not new:
                return
            for each in new:
                given = without(given, each.path)
            kind = self._without_needing(kind, given.keys())

    def _without_needing(self, kind: Any, given: Collection[str]) -> Any:
        """A variant of the model in which absent settings are not required."""
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return kind
        needed = {name for name, each in kind.model_fields.items() if each.is_required()} - set(given)
        self._missing |= needed
        optional: dict[str, Any] = dict.fromkeys(needed, (Any, None))
        return create_model(kind.__name__, __base__=kind, **optional) if optional else kind

    def checked(self, check: Callable[[Any], Iterable[FieldError]]) -> None:
        """Adds the errors of a plug-in's own check. It ends early if the check reads a setting that is missing."""
        if self.model is None:
            return
        try:
            for each in check(self.model):
                self.add([SettingError.of(each)])
        except AttributeError:
            if not self._missing:
                raise

    def add(self, found: Iterable[SettingError]) -> list[SettingError]:
        """Adds the errors that do not follow from other errors; returns them."""
        new = [each for each in found if not self._follows(each)]
        for each in new:
            self._wrong.add(each.path)
        for each in new[:LINES_MAX]:
            self._wrong |= {(*each.path[:-1], name) for name in each.meant_instead(self._given)}
        self.found += new
        return new

    def _follows(self, complaint: SettingError) -> bool:
        prefixes = {complaint.path[: length + 1] for length in range(len(complaint.path))}
        return not self._wrong.isdisjoint(prefixes | {(name,) for name in complaint.reads or ()})


def without(given: Mapping[Any, Any], path: Path) -> dict[Any, Any]:
    """`given` without the setting at `path`. If the path leads into a list, the whole list is removed."""
    if not path or path[0] not in given:
        return dict(given)
    head, rest = path[0], path[1:]
    inner = given[head]
    kept = {name: value for name, value in given.items() if name != head}
    if rest and isinstance(rest[0], str) and isinstance(inner, Mapping):
        return {**kept, head: without(inner, rest)}
    return kept


def _is_address(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(listen_address(text))
    except ValueError:
        return False


def table(value: object) -> Mapping[str, Any]:
    """A table of the document; empty if it is something else."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """A list of the document; empty if it is something else."""
    return list(value) if isinstance(value, list | tuple) else []


def _destination(mapping: Mapping[str, Any]) -> PluginSpec | None:
    failure = table(table(mapping.get("DestinationConfig")).get("OnFailure"))
    destination, prefix = failure.get("Destination"), mapping.get("payload_prefix")
    identity = mapping.get("destination_identity")
    # Wrong values are reported by the check of the mapping itself.
    include = str(mapping.get("include_payload")).lower() == "true"
    try:
        usable = object_prefix(prefix) if isinstance(prefix, str) else None
    except ValueError:
        usable = None
    try:
        return (
            destination_spec(
                destination,
                include_payload=include,
                payload_prefix=usable,
                identity=identity if isinstance(identity, str) else None,
            )
            if isinstance(destination, str)
            else None
        )
    except ValueError:
        return None


def function_name(text: object) -> str:
    """The bare name in a FunctionName; empty if there is none."""
    try:
        return FunctionName.parse(text).name if isinstance(text, str) else ""
    except ValueError:
        return ""
