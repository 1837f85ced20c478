"""Owns Lambda's event source mapping API: one route for each operation (aws-behaviour#operations)."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import Audit, changes_of, members_of, note
from adapters.control.access.authentication import Guard
from adapters.control.aws_errors import RejectionType, RequestRejected, fault, identified
from adapters.control.mappings import mapping_document, paging, request_members, tags
from adapters.control.query_string import values
from adapters.control.responses import answer
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingControl, MappingView, TagControl
from poller.domain.member_changes import changes_between
from poller.domain.records import MappingId
from poller.domain.status import StatusView
from poller.domain.telemetry.labels import ApiOperation

MAPPINGS = "/2015-03-31/event-source-mappings"
TAGS = "/2017-03-31/tags"
UNKNOWN = "The resource you requested does not exist."
NO_FUNCTION = "1 validation error detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null"
INCOMPLETE = "The daemon is starting or stopping and does not know all mappings; try again later."
NO_CONTROL = "This server shows what runs and changes nothing"
NOT_JSON = "The content type of the request body is not application/json"
CONNECTED_MEMBERS = ("EventSourceArn", "FunctionName")
JSON_TYPES = {"application/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1"}

type _Handler = Callable[[web.Request], Awaitable[web.Response]]


def routes(
    guard: Guard,
    status: StatusView,
    control: MappingControl | None,
    tag_control: TagControl | None,
    audit: Audit,
) -> list[web.RouteDef]:
    """Returns all routes, each with and without a slash at its end. Without controls each answers that it is not served."""
    api = LambdaApi(guard, status, control, tag_control)
    table: list[tuple[str, str, _Handler]] = [
        ("POST", MAPPINGS, audit.audited(ApiOperation.CREATE, api.create)),
        ("GET", MAPPINGS, signed_read(guard, api.list)),
        ("GET", MAPPINGS + "/{uuid}", signed_read(guard, api.get)),
        ("PUT", MAPPINGS + "/{uuid}", audit.audited(ApiOperation.UPDATE, api.update)),
        ("DELETE", MAPPINGS + "/{uuid}", audit.audited(ApiOperation.DELETE, api.delete)),
        ("POST", TAGS + "/{arn}", audit.audited(ApiOperation.TAG, api.tag)),
        ("DELETE", TAGS + "/{arn}", audit.audited(ApiOperation.UNTAG, api.untag)),
        ("GET", TAGS + "/{arn}", signed_read(guard, api.list_tags)),
    ]
    return [
        route for method, path, handler in table for route in both(method, path, with_error_answers(handler))
    ]


def both(method: str, path: str, handler: _Handler) -> list[web.RouteDef]:
    """Returns the routes of a path without and with a slash at its end."""
    if method == "GET":
        return [web.get(path, handler), web.get(path + "/", handler)]
    return [web.route(method, path, handler), web.route(method, path + "/", handler)]


def signed_read(guard: Guard, handler: _Handler) -> _Handler:
    """Refuses reads of those who may not read."""

    async def reading(request: web.Request) -> web.Response:
        await guard.check_signed_read(request)
        return await handler(request)

    return reading


def with_error_answers(handler: _Handler) -> _Handler:
    """Answers errors as AWS does, and gives each answer a request id."""

    async def answered(request: web.Request) -> web.Response:
        try:
            return identified(await handler(request))
        except (ApiError, RequestRejected) as error:
            return fault(error)

    return answered


class LambdaApi:
    """The handlers of Lambda's operations."""

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
            raise RequestRejected(RejectionType.ABSENT, NO_CONTROL)
        return self._mappings

    @property
    def _tag_control(self) -> TagControl:
        if self._tags is None:
            raise RequestRejected(RejectionType.ABSENT, NO_CONTROL)
        return self._tags

    async def create(self, request: web.Request) -> web.Response:
        """CreateEventSourceMapping."""
        control = self._control
        given = request_members.read(await self._body(request), request_members.CREATE)
        note(request, asked=members_of(given))
        if given.get("FunctionName") is None:
            raise ApiError(ApiErrorType.VALIDATION, NO_FUNCTION)
        if "Tags" in given:
            tags.valid_tags(given)
        view = await control.create(given)
        changed = {
            name: value
            for name, value in view.parameters.items()
            if given.get(name) is not None and name != "Tags"
        }
        note(
            request, mapping=view.mapping, changes=(*changes_between({}, changed), *_tags(sorted(view.tags)))
        )
        return _accepted(view)

    async def get(self, request: web.Request) -> web.Response:
        """GetEventSourceMapping."""
        control, wanted = self._control, _id(request)
        await self._status.refresh()
        for view in control.views():
            if view.mapping == wanted:
                return answer(mapping_document.mapping(view))
        self._refuse_incomplete()
        raise ApiError(ApiErrorType.MISSING, UNKNOWN)

    async def list(self, request: web.Request) -> web.Response:
        """ListEventSourceMappings."""
        control = self._control
        await self._status.refresh()
        views = control.views()
        self._refuse_incomplete()
        page = paging.page(views, paging.query(request.raw_path))
        found = [mapping_document.mapping(view) for view in page.views]
        return answer({"EventSourceMappings": found, "NextMarker": page.marker})

    async def update(self, request: web.Request) -> web.Response:
        """UpdateEventSourceMapping."""
        note(request, mapping=_id(request))
        control = self._control
        given = request_members.read(await self._body(request), request_members.UPDATE)
        note(request, asked=members_of(given))
        view = await control.update(_id(request), given)
        note(request, changes=changes_of(view))
        return _accepted(view)

    async def delete(self, request: web.Request) -> web.Response:
        """DeleteEventSourceMapping."""
        note(request, mapping=_id(request))
        control = self._control
        await self._guard.signed_body(request)
        view = await control.delete(_id(request))
        # The log keeps what it connected, since nobody can look it up any more.
        gone = {name: view.parameters.get(name) for name in CONNECTED_MEMBERS}
        note(request, changes=changes_between(gone, {}))
        return _accepted(view)

    async def tag(self, request: web.Request) -> web.Response:
        """TagResource."""
        control = self._tag_control
        given = request_members.read(await self._body(request), request_members.TAG)
        wanted = self._find_tagged(request)
        tags_given = tags.valid_tags(given)
        note(request, mapping=wanted.mapping, asked=tags_given, changes=_tags(tags_given))
        await control.tag(wanted.mapping, tags_given)
        return _no_content()

    async def untag(self, request: web.Request) -> web.Response:
        """UntagResource."""
        control = self._tag_control
        await self._guard.signed_body(request)
        wanted = self._find_tagged(request)
        keys = tags.valid_tag_keys(values(request.raw_path, "tagKeys"))
        note(request, mapping=wanted.mapping, asked=keys, changes=_tags(keys))
        await control.untag(wanted.mapping, keys)
        return _no_content()

    async def list_tags(self, request: web.Request) -> web.Response:
        """ListTags."""
        return answer({"Tags": dict(self._find_tagged(request).tags)})

    def _find_tagged(self, request: web.Request) -> MappingView:
        """Returns the mapping that the path names by its ARN; raises ApiError."""
        try:
            return tags.mapping_with_arn(self._control.views(), request.match_info["arn"])
        except ApiError as error:
            if error.fault is ApiErrorType.MISSING:
                self._refuse_incomplete()
            raise

    def _refuse_incomplete(self) -> None:
        """Raises ApiError while not all mappings are loaded, since a mapping that is not found may still appear.

        Terraform takes a mapping that is not found for deleted, and makes another one. After a server error it asks again.
        """
        if not self._status.status().complete:
            raise ApiError(ApiErrorType.SERVICE, INCOMPLETE)

    async def _body(self, request: web.Request) -> bytes:
        """Returns the JSON body of a change whose sender may make it."""
        body = await self._guard.signed_body(request)
        given = request.headers.get("Content-Type")
        if body and given is not None and request.content_type.lower() not in JSON_TYPES:
            raise RequestRejected(RejectionType.MEDIA_TYPE, NOT_JSON)
        return body


def _id(request: web.Request) -> MappingId:
    return MappingId(request.match_info["uuid"].lower())


def _tags(keys: Iterable[str]) -> list[str]:
    """Names tags by their keys only, since a value may be anything, even a secret."""
    return [f"Tags.{key}" for key in keys]


def _accepted(view: MappingView) -> web.Response:
    return answer(mapping_document.mapping(view), status=HTTPStatus.ACCEPTED)


def _no_content() -> web.Response:
    response = web.Response(status=HTTPStatus.NO_CONTENT)
    response.headers["Content-Type"] = "application/json"
    return response
