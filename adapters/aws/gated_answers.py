"""Owns requests that the AWS library's session sends, and answers that it reads only when there is room for them in memory."""

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

from adapters.aws.raw_http import EXPECTED, answer_length, raised
from poller.memory.answers import make_room, room_is_asked_for


async def send_gated(http: object, request: Any) -> Any | None:
    """Sends a request as the library does, and asks for room before it reads the answer. Returns the library's answer.

    None: nobody limits this call, and the library is to send it. Raises what its session raises, and AnswerTooLarge.
    """
    if not room_is_asked_for() or not isinstance(http, AIOHTTPSession):
        return None
    # The session leaves the body of an answer that will be streamed to its caller.
    request.stream_output = True
    answer: Any = await http.send(request)
    try:
        await make_room(answer_length(answer.headers))
        await answer.content
    except EXPECTED as error:
        answer.raw.close()
        raise raised(error, request.url) from error
    except BaseException:
        answer.raw.close()
        raise
    return answer
