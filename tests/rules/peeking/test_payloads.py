"""Payloads are decoded for people: unpacked, as text or base64, and never more than there is room for."""

import gzip
import json
from base64 import b64decode, b64encode
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.peeking.answers import PayloadForm
from poller.domain.streams.aggregates import MAGIC
from poller.rules.peeking.aggregates import FIELDS_MAX, USER_RECORDS_MAX, unpacked
from poller.rules.peeking.payloads import (
    GZIP_PARTS_MAX,
    SHOWN_BYTES_MAX,
    VALUE_BYTES_MAX,
    PayloadRoom,
    decoded,
)
from tests.rules.peeking.aggregated import aggregated, delimited, packed, varint

NOT_UTF_8 = b"\x00\xff\xfe"


@pytest.mark.parametrize(
    ("raw", "form", "text"),
    [
        (b'{"n": 1}', PayloadForm.JSON, '{"n": 1}'),
        (b"12", PayloadForm.JSON, "12"),
        (b"hello", PayloadForm.TEXT, "hello"),
        (b"", PayloadForm.TEXT, ""),
        ("grüße \U0001f980".encode(), PayloadForm.TEXT, "grüße \U0001f980"),
        (b"\x1b[2J\x00", PayloadForm.TEXT, "\x1b[2J\x00"),
        (NOT_UTF_8, PayloadForm.BASE64, b64encode(NOT_UTF_8).decode()),
        (b"[" * 100_000, PayloadForm.TEXT, "[" * 100_000),
        (b"\x1f\x8b\x08 no gzip \xff", PayloadForm.BASE64, b64encode(b"\x1f\x8b\x08 no gzip \xff").decode()),
    ],
)
def test_a_payload_is_shown_in_its_form(raw: bytes, form: PayloadForm, text: str) -> None:
    shown = decoded(raw, bytes_max=VALUE_BYTES_MAX)
    assert (shown.form, shown.text, shown.full_bytes) == (form, text, len(raw))
    assert not shown.cut
    assert not shown.gzip


def test_a_gzip_payload_is_unpacked() -> None:
    shown = decoded(gzip.compress(b'{"n": 1}'), bytes_max=VALUE_BYTES_MAX)
    assert (shown.form, shown.text, shown.full_bytes, shown.gzip) == (PayloadForm.JSON, '{"n": 1}', 8, True)
    assert not shown.cut


def test_a_gzip_bomb_is_unpacked_to_the_size_that_is_shown_and_no_further() -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    shown = decoded(bomb, bytes_max=VALUE_BYTES_MAX)
    assert len(shown.text) == VALUE_BYTES_MAX
    assert (shown.cut, shown.full_bytes, shown.gzip) == (True, None, True)


def part(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("raw", "text", "full_bytes"),
    [
        (part(b"one") + part(b"two"), "onetwo", 6),
        (part(b"one") + part(b"") + part(b"two"), "onetwo", 6),
        (part(b"one") + bytes(20), "one", 3),
        (part(b"one") * GZIP_PARTS_MAX, "one" * GZIP_PARTS_MAX, 3 * GZIP_PARTS_MAX),
        (part(b"one") * 40_000, "one" * GZIP_PARTS_MAX, None),
        (part(b"one") + b"rest", "one", None),
        (part(b"one") + part(b"two")[:-1], "onetwo", None),
        (part(b"one") + part(b"two")[:-8] + bytes(8), "one", None),
        (part(b"one") + b"\x1f\x8b\x08", "one", None),
        (part(b"x" * VALUE_BYTES_MAX), "x" * VALUE_BYTES_MAX, VALUE_BYTES_MAX),
        (part(b"x" * VALUE_BYTES_MAX) + part(b"y"), "x" * VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1),
        (part(b"x" * VALUE_BYTES_MAX) + part(b"yy"), "x" * VALUE_BYTES_MAX, None),
    ],
)
def test_all_parts_of_a_gzip_payload_are_unpacked(raw: bytes, text: str, full_bytes: int | None) -> None:
    shown = decoded(raw, bytes_max=VALUE_BYTES_MAX)
    assert shown.gzip
    assert shown.text == text
    assert shown.full_bytes == full_bytes
    assert shown.cut is (full_bytes != len(text))


def test_a_gzip_payload_that_ends_early_is_marked_as_cut() -> None:
    shown = decoded(part(b"hello" * 100)[:-20], bytes_max=VALUE_BYTES_MAX)
    assert (shown.gzip, shown.cut, shown.full_bytes) == (True, True, None)


@given(parts=st.lists(st.binary(max_size=40), min_size=1, max_size=5), room=st.integers(0, 100))
def test_what_is_shown_of_a_gzip_payload_is_its_beginning(parts: list[bytes], room: int) -> None:
    whole = b"".join(parts)
    shown = decoded(b"".join(map(part, parts)), bytes_max=room)
    found = shown.text.encode() if shown.form is not PayloadForm.BASE64 else b64decode(shown.text)
    assert whole.startswith(found)
    assert len(shown.text.encode()) <= room
    assert shown.cut is (found != whole)
    assert shown.full_bytes in {None, len(whole)}


def test_a_long_text_is_cut_between_characters_and_names_its_full_size() -> None:
    shown = decoded("ü".encode() * 100, bytes_max=7)
    assert (shown.text, shown.full_bytes, shown.cut) == ("üüü", 200, True)


def test_long_bytes_are_cut_to_base64_that_can_be_decoded() -> None:
    raw = NOT_UTF_8 * 100
    shown = decoded(raw, bytes_max=101)
    assert shown.cut
    assert len(shown.text) <= 101
    assert raw.startswith(b64decode(shown.text, validate=True))


def test_the_payloads_of_one_answer_share_its_room() -> None:
    room = PayloadRoom(left=25)
    texts = [room.show(b"0123456789").text for _ in range(4)]
    assert texts == ["0123456789", "0123456789", "01234", ""]
    assert room.left == 0


@given(st.binary(max_size=300), st.integers(0, 100))
def test_decoding_never_raises_and_never_shows_more_than_there_is_room_for(raw: bytes, room: int) -> None:
    for given_bytes in (raw, gzip.compress(raw), MAGIC + raw, packed(raw), b"\x1f\x8b\x08" + raw):
        shown = decoded(given_bytes, bytes_max=room)
        assert len(shown.text.encode()) <= room
        assert shown.cut or shown.full_bytes is not None
        json.dumps(shown.text)
        unpacked(given_bytes)


@given(st.binary(max_size=300))
def test_what_is_shown_whole_is_the_payload(raw: bytes) -> None:
    shown = decoded(raw, bytes_max=1000)
    if not shown.gzip:
        back = b64decode(shown.text) if shown.form is PayloadForm.BASE64 else shown.text.encode()
        assert back == raw


def test_user_records_are_unpacked_with_their_keys() -> None:
    users = [("a", b"one"), ("b", b'{"n": 2}'), ("a", b"three")]
    found = unpacked(aggregated(users))
    assert found is not None
    assert found.records == tuple(users)
    assert (found.count, found.complete) == (3, True)


def test_all_user_records_are_counted_and_the_first_are_unpacked() -> None:
    found = unpacked(aggregated([("k", b"%d" % number) for number in range(USER_RECORDS_MAX + 50)]))
    assert found is not None
    assert (len(found.records), found.count, found.complete) == (
        USER_RECORDS_MAX,
        USER_RECORDS_MAX + 50,
        True,
    )


def test_an_aggregate_of_very_many_records_is_counted_up_to_a_limit_in_a_short_time() -> None:
    raw = packed(delimited(3, b"") * (FIELDS_MAX + 1_000_000))
    found = unpacked(raw)
    assert found is not None
    assert not found.complete


@pytest.mark.parametrize(
    "raw",
    [
        aggregated([("k", b"one")])[:-1] + b"\x00",
        MAGIC,
        MAGIC + bytes(16),
        packed(varint(3 << 3 | 2) + varint(10**9)),
        packed(b"\xff" * 20),
        packed(varint(3 << 3 | 3)),
        packed(varint(3 << 3 | 1) + b"1234567"),
        packed(delimited(3, b"\x0a")),
    ],
)
def test_what_is_no_aggregate_is_shown_as_bytes(raw: bytes) -> None:
    found = unpacked(raw)
    assert found is None or found.records == ()
    assert decoded(raw, bytes_max=1000).form is PayloadForm.BASE64


def test_a_user_record_without_a_key_of_the_table_has_an_empty_key() -> None:
    found = unpacked(packed(delimited(3, b"\x08" + varint(2**60) + delimited(3, b"data"))))
    assert found is not None
    assert found.records == (("", b"data"),)


def test_unknown_fields_and_tags_of_user_records_are_left_out() -> None:
    inner = b"\x08\x00\x10\x00" + delimited(3, b"data") + delimited(4, b"tag") + varint(9 << 3 | 5) + b"1234"
    found = unpacked(
        packed(delimited(1, b"k") + delimited(2, b"1") + delimited(7, b"?") + delimited(3, inner))
    )
    assert found is not None
    assert found.records == (("k", b"data"),)


def test_random_changes_of_an_aggregate_never_raise() -> None:
    rng = Random(3)
    raw = bytearray(aggregated([("k", bytes([number])) for number in range(50)])[4:-16])
    for _ in range(3000):
        changed = bytearray(raw)
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        unpacked(packed(bytes(changed[: rng.randrange(len(changed) + 1)])))


def test_the_room_of_an_answer_is_a_mebibyte() -> None:
    room = PayloadRoom()
    shown = sum(len(room.show(b"x" * VALUE_BYTES_MAX * 2).text) for _ in range(20))
    assert shown == SHOWN_BYTES_MAX
