"""Owns the route that says how many workers there should be, in a form that autoscalers read.

Without a recommendation it answers with an error, and never with a number: an autoscaler then leaves the number of replicas as it is.
"""

from http import HTTPStatus

from aiohttp import web

from adapters.control.access.authentication import Guard
from adapters.control.responses import answer
from adapters.control.v1_api import NotServed, checked_read
from poller.domain.sizing.fleet_size import ShowsFleetSize

NOT_SHOWN = "this server recommends no number of workers"
NOT_KNOWN = "it is not known yet how many workers there should be; keep those that there are"


def routes(guard: Guard, view: object) -> list[web.RouteDef]:
    """Returns the route. `view` is what shows the status; it may know the recommendation, too."""
    api = ScalingApi(view if isinstance(view, ShowsFleetSize) else None)
    return [web.get("/v1/scaling", checked_read(guard, api.scaling))]


class ScalingApi:
    """The handler that answers how many workers there should be."""

    def __init__(self, view: ShowsFleetSize | None) -> None:
        self._view = view

    async def scaling(self, _request: web.Request) -> web.Response:
        """Answers with the recommendation."""
        if self._view is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NOT_SHOWN)
        found = await self._view.fleet_size()
        if found is None:
            raise NotServed(HTTPStatus.SERVICE_UNAVAILABLE, NOT_KNOWN)
        return answer(found)
