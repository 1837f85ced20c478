"""Owns Lambda's event source mapping API: the operations of spec 10.1, each a route over the mappings of this daemon."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from adapters.control import members, paging, tags, wire
from adapters.control.answers import answer
from adapters.control.faults import Denied, Kind, fault, identified
from adapters.control.guard import Guard
from adapters.control.targets import values
from poller.control import Fault, MappingControl, MappingView, Refused, TagControl
from poller.records import MappingId
from poller.status import StatusView

MAPPINGS = "/2015-03-31/event-source-mappings"
TAGS = "/2017-03-31/tags"
UNKNOWN = "The resource you requested does not exist."
NO_FUNCTION = "1 validation error detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null"
INCOMPLETE = "The daemon is starting or stopping and does not know all mappings; try again later."
NO_CONTROL = "This server shows what runs and changes nothing"
NOT_JSON = "The content type of the request body is not application/json"
JSON_TYPES = {"application/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1"}

type _Handler = Callable[[web.Request], Awaitable[web.Response]]


def routes(
    guard: Guard, status: StatusView, control: MappingControl | None, tag_control: TagControl | None
) -> list[web.RouteDef]:
    """All routes, each with and without a slash at its end. Without controls each answers that there is nothing."""
    api = LambdaApi(guard, status, control, tag_control)
    table: list[tuple[str, str, _Handler]] = [
        ("POST", MAPPINGS, api.create),
        ("GET", MAPPINGS, api.list),
        ("GET", MAPPINGS + "/{uuid}", api.get),
        ("PUT", MAPPINGS + "/{uuid}", api.update),
        ("DELETE", MAPPINGS + "/{uuid}", api.delete),
        ("POST", TAGS + "/{arn}", api.tag),
        ("DELETE", TAGS + "/{arn}", api.untag),
        ("GET", TAGS + "/{arn}", api.list_tags),
    ]
    return [route for each in table for route in _both(*each)]


def _both(method: str, path: str, handler: _Handler) -> list[web.RouteDef]:
    whole = _answered(handler)
    if method == "GET":
        return [web.get(path, whole), web.get(path + "/", whole)]
    return [web.route(method, path, whole), web.route(method, path + "/", whole)]


def _answered(handler: _Handler) -> _Handler:
    """Turns what is raised into AWS's answers, and gives each answer an id."""

    async def answered(request: web.Request) -> web.Response:
        try:
            return identified(await handler(request))
        except (Refused, Denied) as error:
            return fault(error)

    return answered


class LambdaApi:
    """Handlers over the mappings."""

    def __init__(
        self, guard: Guard, status: StatusView, control: MappingControl | None, tag_control: TagControl | None
    ) -> None:
        self._guard = guard
        self._status = status
        self._mappings = control
        self._tags = tag_control

    @property
    def _control(self) -> MappingControl:
        if self._mappings is None:
            raise Denied(Kind.ABSENT, NO_CONTROL)
        return self._mappings

    @property
    def _tag_control(self) -> TagControl:
        if self._tags is None:
            raise Denied(Kind.ABSENT, NO_CONTROL)
        return self._tags

    async def create(self, request: web.Request) -> web.Response:
        """CreateEventSourceMapping."""
        control = self._control
        given = members.read(await self._body(request), members.CREATE)
        if given.get("FunctionName") is None:
            raise Refused(Fault.VALIDATION, NO_FUNCTION)
        if "Tags" in given:
            tags.checked(given)
        return _accepted(await control.create(given))

    async def get(self, request: web.Request) -> web.Response:
        """GetEventSourceMapping."""
        wanted = _id(request)
        for view in self._control.views():
            if view.mapping == wanted:
                return answer(wire.mapping(view))
        self._refuse_incomplete()
        raise Refused(Fault.MISSING, UNKNOWN)

    async def list(self, request: web.Request) -> web.Response:
        """ListEventSourceMappings."""
        views = self._control.views()
        self._refuse_incomplete()
        page = paging.page(views, paging.query(request.raw_path))
        found = [wire.mapping(view) for view in page.views]
        return answer({"EventSourceMappings": found, "NextMarker": page.marker})

    async def update(self, request: web.Request) -> web.Response:
        """UpdateEventSourceMapping."""
        control = self._control
        given = members.read(await self._body(request), members.UPDATE)
        return _accepted(await control.update(_id(request), given))

    async def delete(self, request: web.Request) -> web.Response:
        """DeleteEventSourceMapping."""
        control = self._control
        await self._guard.signed_body(request)
        return _accepted(await control.delete(_id(request)))

    async def tag(self, request: web.Request) -> web.Response:
        """TagResource."""
        control = self._tag_control
        given = members.read(await self._body(request), members.TAG)
        wanted = self._tagged(request)
        await control.tag(wanted.mapping, tags.checked(given))
        return _nothing()

    async def untag(self, request: web.Request) -> web.Response:
        """UntagResource."""
        control = self._tag_control
        await self._guard.signed_body(request)
        wanted = self._tagged(request)
        await control.untag(wanted.mapping, tags.checked_keys(values(request.raw_path, "tagKeys")))
        return _nothing()

    async def list_tags(self, request: web.Request) -> web.Response:
        """ListTags."""
        return answer({"Tags": dict(self._tagged(request).tags)})

    def _tagged(self, request: web.Request) -> MappingView:
        """The mapping that the path names by its ARN; raises Refused."""
        try:
            return tags.tagged(self._control.views(), request.match_info["arn"])
        except Refused as error:
            if error.fault is Fault.MISSING:
                self._refuse_incomplete()
            raise

    def _refuse_incomplete(self) -> None:
        """Raises Refused while a mapping that is not here may be one that is not known yet.

        Terraform takes a mapping that is not found for deleted and makes another one; of a fault of the server it asks again.
        """
        if not self._status.status().complete:
            raise Refused(Fault.SERVICE, INCOMPLETE)

    async def _body(self, request: web.Request) -> bytes:
        """The JSON body of a change by somebody who may change things."""
        body = await self._guard.signed_body(request)
        given = request.headers.get("Content-Type")
        if body and given is not None and request.content_type.lower() not in JSON_TYPES:
            raise Denied(Kind.MEDIA_TYPE, NOT_JSON)
        return body


def _id(request: web.Request) -> MappingId:
    return MappingId(request.match_info["uuid"].lower())


def _accepted(view: MappingView) -> web.Response:
    return answer(wire.mapping(view), status=HTTPStatus.ACCEPTED)


def _nothing() -> web.Response:
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    response.headers["Content-Type"] = "application/json"
    return response
