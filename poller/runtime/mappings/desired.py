"""Owns the list of all desired mappings: those of the configuration file, and those made through the API or of custom resources."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from poller.config.daemon_plan import plan_with_own_fields
from poller.config.mapping import EventSourceMapping, FunctionIdentity, as_shown, plan
from poller.config.resources.spec import own_members
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind
from poller.domain.records import Epoch, MappingId
from poller.domain.resources.resource import ResourceOrigin
from poller.domain.rows import MappingState
from poller.rules.reconciling import Wanted
from poller.runtime.mappings.components import MappingSpec
from poller.runtime.mappings.definitions import Definition, Definitions


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredMapping:
    """One desired mapping. `parameters` has AWS's names and the given values. `obstacle` is why it cannot run; empty if it can.

    `origin` is the custom resource that it was made of; None if it was not.
    """

    parameters: Mapping[str, Any]
    spec: MappingSpec
    enabled: bool
    modified: Epoch
    change: MappingState
    from_file: bool
    tags: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False
    obstacle: str = ""
    origin: ResourceOrigin | None = None

    @property
    def mapping(self) -> MappingId:
        """Its UUID."""
        return self.spec.plan.mapping

    @property
    def pair(self) -> tuple[str, str]:
        """Source and function ARN; no two mappings have the same pair (aws-behaviour#function-arn)."""
        return self.spec.plan.source_arn, self.spec.plan.function_arn

    @property
    def queue(self) -> bool:
        """Whether its source is a queue."""
        return self.spec.plan.kind is SourceKind.SQS

    def wanted(self) -> Wanted:
        """How it should run."""
        return Wanted(
            spec=self.spec,
            enabled=self.enabled and not self.obstacle,
            deleting=self.deleting,
            change=self.change,
        )

    def shown(self) -> dict[str, Any]:
        """Its parameters with every default filled in."""
        return as_shown(EventSourceMapping.model_validate(self.parameters))


class DesiredMappings:
    """The list of desired mappings. An entry is made again only if its plan or definition changed."""

    def __init__(self, plan: DaemonPlan, definitions: Definitions, *, now: Epoch) -> None:
        self.plan = plan
        self._definitions = definitions
        self._file = {each.mapping: each for each in _from_file(plan, {}, now)}
        self._made: dict[MappingId, tuple[Definition, DesiredMapping]] = {}
        self._unfit: dict[MappingId, str] = {}

    def replan(self, plan: DaemonPlan, *, now: Epoch) -> None:
        """Takes over another configuration. Unchanged mappings keep their time of modification."""
        self._file = {each.mapping: each for each in _from_file(plan, self._file, now)}
        self.plan = plan
        self._made.clear()

    def entries(self) -> tuple[DesiredMapping, ...]:
        """The mappings of the file in its order, then the others in the order of their creation.

        Of mappings with the same source and function only the first can run.
        """
        made = [entry for each in self._definitions.known() if (entry := self._entry(each)) is not None]
        firsts = {entry.pair: entry for entry in self._file.values()}
        return (
            *self._file.values(),
            *(_unless_twin(entry, firsts.setdefault(entry.pair, entry)) for entry in made),
        )

    def get(self, mapping: MappingId) -> DesiredMapping | None:
        """The entry of one mapping."""
        if mapping in self._file:
            return self._file[mapping]
        return next((entry for entry in self.entries() if entry.mapping == mapping), None)

    def notes(self) -> tuple[str, ...]:
        """Notes for people about mappings that cannot run, one line each."""
        obstacles = [
            f"mapping {entry.mapping}: {entry.obstacle}" for entry in self.entries() if entry.obstacle
        ]
        unfit = [text for mapping, text in self._unfit.items() if self._definitions.get(mapping) is not None]
        return (*self._definitions.unread, *unfit, *obstacles)

    def spec(self, mapping: EventSourceMapping, identity: MappingId) -> MappingSpec:
        """The spec of a mapping made through the API."""
        found = plan(
            mapping,
            identities(self.plan),
            identity=identity,
            on_destination_failure=self.plan.on_destination_failure,
        )
        return self._spec(found)

    def _spec(self, found: MappingPlan) -> MappingSpec:
        return MappingSpec(
            plan=_normal(found), function=self.function(found.function), tuning=self.plan.tuning
        )

    def function(self, name: str) -> FunctionPlan:
        """The configured function, or the plan by which the default invoker calls a function of that name."""
        return _function(self.plan, name)

    def _entry(self, definition: Definition) -> DesiredMapping | None:
        if definition.mapping in self._file:
            return None
        found = self._made.get(definition.mapping)
        if found is not None and found[0] == definition:
            return found[1]
        try:
            entry = self._made_of(definition)
        except (ValidationError, ValueError) as error:
            text = str(error).splitlines()[0]
            self._unfit[definition.mapping] = (
                f"mapping {definition.mapping}: its definition does not fit this version: {text}"
            )
            return None
        self._unfit.pop(definition.mapping, None)
        self._made[definition.mapping] = definition, entry
        return entry

    def _read(self, definition: Definition) -> tuple[EventSourceMapping, MappingSpec]:
        """What a definition says. Only one that was made of a custom resource may have the configuration file's own fields."""
        if definition.origin is None:
            mapping = EventSourceMapping.model_validate(definition.parameters)
            return mapping, self.spec(mapping, definition.mapping)
        members = own_members(definition.parameters, definition.origin.own)
        found = plan_with_own_fields(
            members,
            identities(self.plan),
            identity=definition.mapping,
            on_destination_failure=self.plan.on_destination_failure,
        )
        return members, self._spec(found)

    def _made_of(self, definition: Definition) -> DesiredMapping:
        mapping, spec = self._read(definition)
        return DesiredMapping(
            parameters=definition.parameters,
            spec=spec,
            enabled=mapping.Enabled is not False,
            modified=definition.modified,
            change=MappingState.ENABLED if self._definitions.inherited(definition) else definition.change,
            from_file=False,
            tags=definition.tags,
            deleting=definition.deleting,
            origin=definition.origin,
        )


def _function(plan: DaemonPlan, name: str) -> FunctionPlan:
    return plan.functions.get(name) or FunctionPlan(name=name, invoker=plan.default_invoker)


def identities(plan: DaemonPlan) -> dict[str, FunctionIdentity]:
    """The ARNs and roles of the configured functions, by name."""
    return {name: FunctionIdentity(arn=each.arn, role=each.role) for name, each in plan.functions.items()}


def _from_file(
    plan: DaemonPlan, before: Mapping[MappingId, DesiredMapping], now: Epoch
) -> list[DesiredMapping]:
    found: list[DesiredMapping] = []
    for each in plan.mappings:
        names = {"FunctionName": each.function_arn, "EventSourceArn": each.source_arn}
        document = {**names, **plan.documents.get(each.mapping, {})}
        entry = DesiredMapping(
            parameters=document,
            spec=MappingSpec(plan=_normal(each), function=_function(plan, each.function), tuning=plan.tuning),
            enabled=each.enabled,
            modified=now,
            change=MappingState.CREATING,
            from_file=True,
            tags=dict(document.get("Tags", {})),
        )
        found.append(_changed(before.get(each.mapping), entry))
    return found


def _changed(before: DesiredMapping | None, entry: DesiredMapping) -> DesiredMapping:
    if before is None:
        return entry
    change = MappingState.UPDATING if before.enabled else MappingState.ENABLING
    same = replace(entry, modified=before.modified, change=before.change) == before
    return before if same else replace(entry, change=change)


def _unless_twin(entry: DesiredMapping, first: DesiredMapping) -> DesiredMapping:
    if first is entry:
        return entry
    owner = "the configuration file's " if first.from_file else ""
    return replace(entry, obstacle=f"{owner}mapping {first.mapping} connects the same; delete one of them")


def _normal(plan: MappingPlan) -> MappingPlan:
    """The plan without `enabled`, which does not affect how a mapping runs."""
    return replace(plan, enabled=True)
