"""The messages between the supervisor and a process."""

import asyncio

import pytest

from poller.commands.supervise.frames import BODY_BYTES_MAX, HEAD_BYTES_MAX, BrokenFrame, Frame, frames


def _read(sent: bytes) -> list[Frame]:
    async def main() -> list[Frame]:
        reader = asyncio.StreamReader(limit=HEAD_BYTES_MAX)
        reader.feed_data(sent)
        reader.feed_eof()
        return [each async for each in frames(reader)]

    return asyncio.run(main())


def test_frames_come_as_they_were_sent() -> None:
    sent = [
        Frame({"kind": "ask", "ask": 1}),
        Frame({"kind": "answer", "to": 0}, b"a\nb{}\n"),
        Frame({"kind": "end"}),
    ]
    assert _read(b"".join(each.encoded() for each in sent)) == sent


@pytest.mark.parametrize("cut", range(1, len(Frame({"kind": "a"}, b"body").encoded())))
def test_a_process_that_dies_in_the_middle_of_a_frame_has_sent_nothing_more(cut: int) -> None:
    whole = Frame({"kind": "first"})
    found: list[Frame] = []
    try:
        found = _read(whole.encoded() + Frame({"kind": "a"}, b"body").encoded()[:cut])
    except BrokenFrame:
        return
    assert found == [whole]


@pytest.mark.parametrize(
    "sent",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"bytes": -1}\n',
        b'{"bytes": "1"}\n',
        b'{"bytes": %d}\n' % (BODY_BYTES_MAX + 1),
        b"a" * (HEAD_BYTES_MAX + 1) + b"\n",
    ],
    ids=["text", "list", "no size", "negative", "no number", "too long", "long line"],
)
def test_what_is_no_frame_is_told(sent: bytes) -> None:
    with pytest.raises(BrokenFrame):
        _read(sent)
