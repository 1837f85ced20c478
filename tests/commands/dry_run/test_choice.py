"""Which mappings a dry run runs, and that its plan has no effects left."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.commands.dry_run.choice import choose, names_of
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import MappingId
from poller.rules.target_names import NamedMapping, described
from tests.commands.dry_run.sites import plan_of
from tests.runtime.fakes import STREAM_ARN, mapping

QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:mails"
TABLE_ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/stock/stream/2026-01-01T00:00:00.000"
STREAM = mapping(destination="arn:aws:sqs:eu-west-1:111122223333:failed")
QUEUE = mapping(
    mapping=MappingId("7d0a5e0b-8b0c-4a56-9c0e-0d7d6b0c2b22"),
    kind=SourceKind.SQS,
    source_arn=QUEUE_ARN,
    function="mailer",
    function_arn="arn:aws:lambda:eu-west-1:111122223333:function:mailer:live",
)
TABLE = mapping(
    mapping=MappingId("9d0a5e0b-8b0c-4a56-9c0e-0d7d6b0c2b33"),
    kind=SourceKind.DYNAMODB,
    source_arn=TABLE_ARN,
    enabled=False,
)
ALL = (STREAM, QUEUE, TABLE)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        (STREAM.mapping, [STREAM]),
        ("readings", [STREAM]),
        ("stream/readings", [STREAM]),
        (STREAM_ARN, [STREAM]),
        ("mails", [QUEUE]),
        ("queue/mails", [QUEUE]),
        ("function/mailer:live", [QUEUE]),
        ("function/mailer", [QUEUE]),
        (QUEUE.mapping[:8], [QUEUE]),
        ("mailer", [QUEUE]),
        ("mailer:live", [QUEUE]),
        ("stock", [TABLE]),
        ("table/stock", [TABLE]),
        (TABLE_ARN, [TABLE]),
        ("reader", [STREAM, TABLE]),
    ],
)
def test_a_mapping_has_several_names(name: str, chosen: list[MappingPlan]) -> None:
    assert list(choose(plan_of(*ALL), [name], receive=True).chosen) == chosen


@pytest.mark.parametrize("mapping", ALL, ids=("stream", "queue", "table"))
def test_it_takes_the_names_that_other_commands_take(mapping: MappingPlan) -> None:
    for name in names_in_errors(mapping):
        assert mapping in choose(plan_of(*ALL), [name], receive=True).chosen, name


def names_in_errors(mapping: MappingPlan) -> list[str]:
    """The names of a mapping that the errors of other commands offer."""
    named = NamedMapping(
        mapping=mapping.mapping, function=mapping.function_arn, source_arn=mapping.source_arn
    )
    identity, _, names = described(named).partition(" (")
    return [identity, *names.removesuffix(")").split(", ")]


def test_without_names_all_enabled_ones_run_and_what_is_left_out_is_said() -> None:
    dry = choose(plan_of(*ALL), [], receive=False)
    assert dry.chosen == (STREAM,)
    assert [note.partition(":")[0] for note in dry.notes] == [
        "mailer:live from mails".partition(":")[0],
        "reader from table/stock/stream/2026-01-01T00",
    ]
    assert choose(plan_of(*ALL), [], receive=True).chosen == (STREAM, QUEUE)


@pytest.mark.parametrize(
    ("names", "mappings", "text"),
    [
        (["nobody"], ALL, "--mapping: value 'nobody': no mapping of the file has this"),
        (["nobody"], (), "it has: none"),
        (["mails"], ALL, "add --receive"),
        (["mails", "readings"], ALL, "add --receive"),
        ([], (QUEUE,), "add --receive"),
    ],
)
def test_what_would_run_nothing_or_less_than_asked_is_refused(
    names: list[str], mappings: tuple[MappingPlan, ...], text: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=text):
        choose(plan_of(*mappings), names, receive=False)


def test_an_empty_configuration_runs_nothing() -> None:
    assert choose(plan_of(), [], receive=False).chosen == ()


def test_a_mapping_that_several_names_mean_runs_once() -> None:
    assert choose(plan_of(*ALL), ["readings", STREAM.mapping], receive=False).chosen == (STREAM,)


@given(st.lists(st.sampled_from(sorted(names_of(STREAM) | names_of(TABLE))), max_size=3), st.booleans())
def test_the_plan_has_no_effect_outside(names: list[str], receive: bool) -> None:
    plan = plan_of(*ALL)
    dry = choose(plan, names, receive=receive)
    assert all(each.discard.destination is None for each in dry.plan.mappings)
    assert (dry.plan.store, dry.plan.store_settings) == ("memory", {"url": "memory://"})
    assert dry.plan.worker != plan.worker
    enabled = {each.mapping for each in dry.plan.mappings if each.enabled}
    assert enabled == {each.mapping for each in dry.chosen}
    assert [each.mapping for each in dry.plan.mappings] == [each.mapping for each in plan.mappings]
    for before, after in zip(plan.mappings, dry.plan.mappings, strict=True):
        assert replace(after, enabled=before.enabled, discard=before.discard) == before
