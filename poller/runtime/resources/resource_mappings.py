"""Owns how mappings are made of custom resources: it brings the definitions in the store in line with what this worker sees.

Every worker does this. The store's condition on a definition's revision and the generation that the definition remembers decide
which write counts (`poller.rules.resources.following`). A mapping whose resource this worker does not see is looked at again before
anything happens to it: the resource may only be new, or the selector may be another one now.

Mappings that were made of resources in another namespace of the same name, as another cluster has one, stop all of this: to a daemon
that looks at the wrong cluster every resource seems to be deleted.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from poller.config.mapping import source_kind
from poller.config.resources.spec import Read, ack_name, read_spec
from poller.domain.errors import ResourceMissing, RowChanged
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch, MappingId
from poller.domain.resources.resource import MappingResource, ResourceOrigin
from poller.ports import Clock
from poller.resource_ports.resources import ResourceFeed
from poller.rules.reconciling import change_of, created, updated
from poller.rules.resources.following import (
    FIXED,
    MadeMapping,
    Presence,
    ResourceStep,
    step_for,
    step_without,
)
from poller.runtime.mappings.definitions import Definition, Definitions
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.resources.known_resources import KnownResources

TAKEN = "the UUID of its spec belongs to another mapping, which does not come from this resource"

ELSEWHERE = (
    "custom resources are not followed: the store has the mapping {mapping} of the resource {origin} in a namespace with the UID {other}, "
    "and that namespace has the UID {own} in this cluster; use the cluster of this store, or a store of its own for this cluster, "
    "or, if the other namespace is gone for good, write resources.forget_namespace: {other}, which deletes its mappings"
)


@dataclass(frozen=True, slots=True)
class _Kept:
    generation: int
    read: Read


class ResourceMappings:
    """Makes, changes and deletes mappings. `namespace` is the one that is followed; `changed` is called after each write.

    Mappings of the namespace with the UID `forgets` are deleted.
    """

    def __init__(
        self,
        known: KnownResources,
        definitions: Definitions,
        desired: DesiredMappings,
        *,
        feed: ResourceFeed,
        namespace: str,
        forgets: str,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._known = known
        self._definitions = definitions
        self._desired = desired
        self._feed = feed
        self._namespace = namespace
        self._forgets = forgets
        self._clock = clock
        self._changed = changed
        self._reads: dict[str, _Kept] = {}

    def mapping_id(self, resource: MappingResource) -> MappingId:
        """The id of a resource's mapping: the one in its spec, else its own uid."""
        given = resource.spec.get("uuid")
        read = self.read(resource)
        return (
            MappingId(str(read.own["UUID"]))
            if isinstance(given, str) and "UUID" in read.own
            else MappingId(resource.uid)
        )

    def read(self, resource: MappingResource) -> Read:
        """What a resource's spec says. It is read once for each generation."""
        kept = self._reads.get(resource.uid)
        if kept is None or kept.generation != resource.generation:
            kept = _Kept(resource.generation, read_spec(resource.spec, now=self._clock.now()))
            self._reads[resource.uid] = kept
        return kept.read

    def definition(self, resource: MappingResource) -> Definition | None:
        """The definition that was made of a resource; None if there is none."""
        return self._definitions.of_resource(resource.uid)

    def refusal(self, resource: MappingResource) -> str:
        """Why no mapping can be made of the resource's spec as it is now; empty if one can."""
        read, made = self.read(resource), self.definition(resource)
        if read.refused or made is None:
            return read.refused
        if self.mapping_id(resource) != made.mapping:
            return "uuid cannot be changed; delete the resource and create another one"
        for name in FIXED:
            if made.parameters.get(name) != read.parameters.get(name):
                return f"{ack_name(name)} cannot be changed; delete the resource and create another one"
        return ""

    def conflict(self, resource: MappingResource) -> str:
        """Why another mapping is in the way of the resource's; empty if none is."""
        made = self.definition(resource)
        if made is None:
            valid = not self.read(resource).refused
            taken = self._desired.get(self.mapping_id(resource)) is not None
            return TAKEN if valid and taken else ""
        entry = self._desired.get(made.mapping)
        return TAKEN if entry is not None and entry.from_file else "" if entry is None else entry.obstacle

    def obstacle(self) -> str:
        """Why the resources of this cluster are not those of the store; empty if they are, or if that is not known yet."""
        own = self._known.namespace_uid
        for made in self._definitions.known():
            origin = made.origin
            if origin is None or origin.namespace != self._namespace or not own:
                continue
            if origin.namespace_uid not in (own, self._forgets):
                return ELSEWHERE.format(
                    mapping=made.mapping, origin=origin.text, other=origin.namespace_uid, own=own
                )
        return ""

    async def apply(self) -> None:
        """Brings all mappings in line with what the reconciler last read of the store. Raises the errors of the store and of the feed."""
        if not self._known.listed or not self._definitions.read or self.obstacle():
            return
        resources = self._known.all()
        self._reads = {each.uid: self._reads[each.uid] for each in resources if each.uid in self._reads}
        for resource in resources:
            with suppress(RowChanged, ResourceMissing):
                # Another worker was faster. The next round sees what it wrote.
                await self._apply_one(resource)
        await self._apply_without({each.uid for each in resources})

    async def _apply_one(self, resource: MappingResource) -> None:
        made = self.definition(resource)
        match step_for(resource, self._known_mapping(resource, made), valid=not self.refusal(resource)):
            case ResourceStep.CREATE:
                if not await self._still_there(resource):
                    return
                await self._create(resource)
            case ResourceStep.CHANGE if made is not None:
                await self._change(resource, made)
            case ResourceStep.DELETE if made is not None:
                await self._delete(made)
            case _:
                return
        self._changed()

    def _known_mapping(self, resource: MappingResource, made: Definition | None) -> MadeMapping | None:
        if made is not None:
            return MadeMapping(origin=made.origin, deleting=made.deleting)
        other = self._desired.get(self.mapping_id(resource))
        return None if other is None else MadeMapping(origin=other.origin, deleting=other.deleting)

    async def _still_there(self, resource: MappingResource) -> bool:
        """Asks the cluster itself: a mapping that was deleted with its resource must not be made again by a worker that sees it late."""
        found = await self._feed.get(resource.namespace, resource.name)
        return found is not None and found.uid == resource.uid and not found.deleting

    async def _create(self, resource: MappingResource) -> None:
        read, now = self.read(resource), self._clock.now()
        enabled = read.parameters.get("Enabled") is not False
        state = created(enabled=enabled, queue=_queue(read))
        since = min(now, resource.created) if resource.created else now
        await self._definitions.add(
            Definition(
                mapping=self.mapping_id(resource),
                parameters=read.parameters,
                created=Epoch(since),
                modified=now,
                change=change_of(state),
                origin=self._origin(resource, read),
            )
        )

    async def _change(self, resource: MappingResource, made: Definition) -> None:
        read = self.read(resource)
        before, after = (each.get("Enabled") is not False for each in (made.parameters, read.parameters))
        state = updated(before=before, enabled=after, queue=_queue(read))
        origin = self._origin(resource, read)
        assert made.origin is not None, "a resource changes only what was made of it"
        if (
            made.parameters == read.parameters
            and replace(made.origin, generation=origin.generation) == origin
        ):
            # Nothing of the mapping has changed, so nothing of it is shown as being applied.
            await self._definitions.change(replace(made, origin=origin))
            return
        await self._definitions.change(
            replace(
                made,
                parameters=read.parameters,
                origin=origin,
                modified=self._clock.now(),
                change=change_of(state),
            )
        )

    async def _delete(self, made: Definition) -> None:
        await self._definitions.change(replace(made, deleting=True, modified=self._clock.now()))

    async def _rest(self, made: Definition) -> None:
        assert made.origin is not None, "only a mapping of a resource can be left by its resource"
        await self._definitions.change(
            replace(
                made,
                parameters={**made.parameters, "Enabled": False},
                origin=replace(made.origin, selected=False),
                modified=self._clock.now(),
            )
        )

    async def _apply_without(self, seen: set[str]) -> None:
        """What becomes of mappings whose resources this worker does not see. The cluster itself is asked: what this worker saw last may be older."""
        there: list[tuple[Definition, ResourceOrigin]] = []
        for made in self._definitions.known():
            origin = made.origin
            if origin is None or origin.uid in seen or made.deleting or origin.namespace != self._namespace:
                continue
            if await self._is_gone(origin):
                await self._without(made, Presence.GONE)
            elif origin.selected:
                there.append((made, origin))
        if not there:
            return
        # Listed after all of them were found, and once for all.
        listed = {each.uid for each in (await self._feed.list()).resources}
        for made, origin in there:
            await self._without(made, Presence.SELECTED if origin.uid in listed else Presence.UNSELECTED)

    async def _is_gone(self, origin: ResourceOrigin) -> bool:
        if origin.namespace_uid == self._forgets:
            return True
        found = await self._feed.get(origin.namespace, origin.name)
        return found is None or found.uid != origin.uid

    async def _without(self, made: Definition, presence: Presence) -> None:
        with suppress(RowChanged, ResourceMissing):
            match step_without(MadeMapping(origin=made.origin, deleting=made.deleting), presence):
                case ResourceStep.DELETE:
                    await self._delete(made)
                case ResourceStep.REST:
                    await self._rest(made)
                case _:
                    return
            self._changed()

    def _origin(self, resource: MappingResource, read: Read) -> ResourceOrigin:
        return ResourceOrigin(
            namespace=resource.namespace,
            namespace_uid=self._known.namespace_uid,
            name=resource.name,
            uid=resource.uid,
            generation=resource.generation,
            own=read.own,
        )


def _queue(read: Read) -> bool:
    return source_kind(read.parameters["EventSourceArn"]) is SourceKind.SQS
