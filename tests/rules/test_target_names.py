"""Names of mappings and shards that operators write."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import MappingId, ShardId
from poller.rules.target_names import (
    NamedMapping,
    ShardNames,
    UnknownTarget,
    described,
    find_mapping,
    find_shard,
    may_name,
)
from tests.bounds.growth import assert_linear

LAMBDA = "arn:aws:lambda:eu-west-1:111122223333:function:"
ORDERS = NamedMapping(
    mapping=MappingId("5f1c0a52-8b0c-4a56-9c0e-0d7d6b0c2b11"),
    function=LAMBDA + "ship:live",
    source_arn="arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
)
CUSTOMERS = NamedMapping(
    mapping=MappingId("5f1c0a52-0000-4a56-9c0e-0d7d6b0c2b12"),
    function=LAMBDA + "greet",
    source_arn="arn:aws:dynamodb:eu-west-1:111122223333:table/customers/stream/2026-01-01T00:00:00.000",
)
MAILS = NamedMapping(
    mapping=MappingId("77777777-0000-4a56-9c0e-0d7d6b0c2b13"),
    function="orders",
    source_arn="arn:aws:sqs:eu-west-1:111122223333:mails.fifo",
)
ALL = (ORDERS, CUSTOMERS, MAILS)
SHARDS = tuple(ShardId(f"shardId-{number:012}") for number in (3, 13, 130))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5f1c0a52-8b0c-4a56-9c0e-0d7d6b0c2b11", ORDERS),
        ("5F1C0A52-8B0C-4A56-9C0E-0D7D6B0C2B11", ORDERS),
        ("5f1c0a52-8", ORDERS),
        ("77777777", MAILS),
        (" ship ", ORDERS),
        ("ship:live", ORDERS),
        ("function/ship", ORDERS),
        (LAMBDA + "ship:live", ORDERS),
        ("stream/orders", ORDERS),
        ("function/orders", MAILS),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/orders", ORDERS),
        ("customers", CUSTOMERS),
        ("table/customers", CUSTOMERS),
        ("table/customers/stream/2026-01-01T00:00:00.000", CUSTOMERS),
        ("greet", CUSTOMERS),
        ("mails.fifo", MAILS),
        ("queue/mails.fifo", MAILS),
    ],
)
def test_a_mapping_is_found_by_each_of_its_names(text: str, expected: NamedMapping) -> None:
    assert find_mapping(text, ALL) is expected


@pytest.mark.parametrize("text", ["orders", "5f1c0a52"])
def test_a_name_of_several_mappings_is_refused_with_those_that_have_it(text: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        find_mapping(text, ALL)
    assert described(ORDERS) in str(caught.value)
    assert "may be any of 2 mappings" in str(caught.value)


@pytest.mark.parametrize("text", ["", "order", "stream/mails", "5f1c", "table/orders", "\x1b[2Jship"])
def test_a_name_that_no_mapping_has_is_refused_with_all_mappings(text: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        find_mapping(text, ALL)
    for mapping in ALL:
        assert described(mapping) in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_function_without_a_qualifier_goes_before_one_whose_qualifier_was_left_out() -> None:
    plain = NamedMapping(
        mapping=MappingId("99999999-0000-4a56-9c0e-0d7d6b0c2b13"),
        function=LAMBDA + "ship",
        source_arn=MAILS.source_arn,
    )
    assert find_mapping("ship", (ORDERS, plain)) is plain


def test_an_error_says_when_there_is_no_mapping_at_all() -> None:
    with pytest.raises(UnknownTarget, match="there are no mappings"):
        find_mapping("orders", ())


def test_an_error_names_ten_candidates_and_how_many_more_there_are() -> None:
    many = [
        NamedMapping(mapping=MappingId(f"{n:08}"), function=f"f{n}", source_arn=MAILS.source_arn)
        for n in range(25)
    ]
    with pytest.raises(UnknownTarget, match=r"function/f9, queue/mails.fifo\) and 15 more"):
        find_mapping("nothing", many)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shardId-000000000013", SHARDS[1]),
        ("3", SHARDS[0]),
        ("13", SHARDS[1]),
        ("0013", SHARDS[1]),
        ("000000000130", SHARDS[2]),
        (" 30 ", SHARDS[2]),
    ],
)
def test_a_shard_is_found_by_its_id_its_number_or_an_ending(text: str, expected: ShardId) -> None:
    assert find_shard(text, SHARDS) == expected


def test_a_shard_of_a_table_is_found_by_an_ending_that_only_it_has() -> None:
    shards = [ShardId("shardId-00000001-aaaa1234"), ShardId("shardId-00000001-bbbb1234")]
    assert find_shard("b1234", shards) == shards[1]
    with pytest.raises(UnknownTarget, match="may be any of 2 shards"):
        find_shard("1234", shards)


@pytest.mark.parametrize("text", ["", "4", "shardId-3", "x"])
def test_a_shard_that_does_not_exist_is_refused_with_those_that_do(text: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        find_shard(text, SHARDS)
    for shard in SHARDS:
        assert shard in str(caught.value)


def test_a_source_without_shards_is_named_as_the_reason() -> None:
    with pytest.raises(UnknownTarget, match="lists no shards"):
        find_shard("3", [])


@given(st.text(), st.text())
def test_an_id_names_its_mapping_whatever_names_the_others_have(name: str, function: str) -> None:
    odd = NamedMapping(mapping=MappingId("id"), function=function, source_arn=name)
    assert find_mapping("ID", (ORDERS, odd)) is odd
    assert categories(described(odd)).isdisjoint({"Cc", "Cs", "Zl", "Zp"})


def categories(text: str) -> set[str]:
    """The categories of a text's characters."""
    return {unicodedata.category(char) for char in text}


@pytest.mark.parametrize(
    "text", ["2", "02", "12", "1", "012", "shardId-000000000012", "0000012", "7-ab", "ab", "7", "x"]
)
@pytest.mark.parametrize(
    "shards",
    [
        [f"shardId-{number:012}" for number in (1, 2, 12, 112)],
        ["shardId-00000001746051200000-a7", "shardId-00000001746051200007-ab"],
    ],
    ids=["kinesis", "table"],
)
def test_what_finds_a_shard_may_name_it_and_a_number_may_name_no_other(text: str, shards: list[str]) -> None:
    ids = [ShardId(each) for each in shards]
    try:
        found = find_shard(text, ids)
    except UnknownTarget:
        return
    assert may_name(text, found)
    if text.isdecimal() and found.removeprefix("shardId-").isdecimal():
        assert [each for each in ids if may_name(text, each)] == [found]


@given(
    st.lists(
        st.builds("{}{}".format, st.sampled_from(["shardId-", ""]), st.text("012-a", max_size=4)), max_size=8
    ),
    st.text("012-a", max_size=4),
)
def test_a_shard_is_found_as_by_a_look_at_each(names: list[str], text: str) -> None:
    """The id itself goes before the number in it, and that before an ending."""
    shards = sorted(set(map(ShardId, names)))
    ends = {each: each.removeprefix("shardId-") for each in shards if each.startswith("shardId-")}
    ways = [
        [each for each in shards if each == text],
        [
            each
            for each, end in ends.items()
            if text.isdecimal() and end.isdecimal() and int(end) == int(text)
        ],
        [each for each in shards if text and each.endswith(text)],
    ]
    found = next((each for each in ways if each), []) if text else []
    if len(found) == 1:
        assert find_shard(text, shards) == found[0]
        return
    with pytest.raises(
        UnknownTarget, match=f"any of {len(found)} shards" if found else "is no shard|none is named"
    ):
        find_shard(text, shards)


@pytest.mark.parametrize("form", ["shardId-{:012}", "shardId-0000000174605120-{:08x}"])
@pytest.mark.parametrize("named", [str, lambda shard: shard.rpartition("-")[2].lstrip("0")])
def test_many_shards_are_found_among_many_in_linear_work(form: str, named: Callable[[str], str]) -> None:
    def find_all(ids: list[ShardId]) -> list[ShardId]:
        names = ShardNames(ids)
        return [names.find(named(each)) for each in ids]

    ids = [ShardId(form.format(number)) for number in range(16**3, 16**3 + 100)]
    assert find_all(ids) == ids
    # Numbers of one length, so that none is the ending of another.
    assert_linear(find_all, lambda size: [ShardId(form.format(10**6 + each)) for each in range(size)], 500)
