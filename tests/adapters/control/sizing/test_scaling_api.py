"""The route that autoscalers read, as KEDA's metrics-api scaler reads it by its documentation."""

import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest
import yaml

from adapters.control.settings import ApiSettings
from adapters.control.sizing.scaling_api import NOT_KNOWN
from poller.domain.access import Reads
from poller.domain.sizing.fleet_size import Pressure, WorkerPressure
from tests.adapters.control.serving import SCALING, Running, Setting, View, serving, validate
from tests.hostile_texts import HOSTILE

TEMPLATE = Path(__file__).parents[4] / "deploy" / "helm" / "poller" / "templates" / "scaledobject.yaml"


class ScalerError(Exception):
    """KEDA would get no number: it leaves the number of replicas as it is."""


def chart_says(name: str) -> str:
    """A parameter of the trigger in the chart."""
    (value,) = re.findall(rf"^ +{name}: (.+)$", TEMPLATE.read_text(), re.MULTILINE)
    found: str = yaml.safe_load(value)
    return found


async def scaler(run: Running, location: str, token: str = "") -> Decimal:
    """What the scaler finds at `location`, a GJSON path of names and indices, in an answer with status 200."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, body, _ = await run.exact("GET", "/v1/scaling", headers=headers)
    if status != 200:
        raise ScalerError(f"the API returned {status}")
    found = json.loads(body)
    for step in location.split("."):
        found = found[int(step)] if isinstance(found, list) else found.get(step)
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise ScalerError("valueLocation must point to a value of type number or a string with a quantity")
    return Decimal(str(found))


def test_the_scaler_of_the_chart_finds_the_recommendation() -> None:
    location = chart_says("valueLocation")
    found = serving(lambda run: scaler(run, location))
    assert found == SCALING.wanted_workers
    # The HPA divides by the target, so that the number itself is the number of replicas.
    assert found / Decimal(chart_says("targetValue")) == 3


def test_one_wanted_worker_does_not_keep_itself() -> None:
    """With scale to zero, what is not above the activation value lets the last replica go."""
    assert Decimal(chart_says("activationTargetValue")) == 1


def test_without_a_recommendation_the_scaler_gets_an_error_and_no_number() -> None:
    setting = Setting(view=View(scaling=None))
    with pytest.RaisesGroup(ScalerError, flatten_subgroups=True):
        serving(lambda run: scaler(run, "wanted_workers"), setting)
    status, body, _ = serving(lambda run: run.get("/v1/scaling"), setting)
    assert (status, body["message"]) == (503, NOT_KNOWN)


def test_the_scaler_needs_the_token_of_one_who_may_look(tmp_path: Path) -> None:
    (tokens := tmp_path / "tokens.yaml").write_text("keda: {token: see-1, role: view}\n")
    tokens.chmod(0o600)
    setting = Setting(api=ApiSettings(tokens_file=tokens, reads=Reads.TOKEN))
    assert serving(lambda run: scaler(run, "wanted_workers", "see-1"), setting) == 3
    with pytest.RaisesGroup(ScalerError, flatten_subgroups=True):
        serving(lambda run: scaler(run, "wanted_workers"), setting)


def test_credentials_that_are_none_are_refused_and_the_body_has_no_number(tmp_path: Path) -> None:
    (tokens := tmp_path / "tokens.yaml").write_text("keda: {token: see-1, role: view}\n")
    tokens.chmod(0o600)
    setting = Setting(api=ApiSettings(tokens_file=tokens, reads=Reads.TOKEN))
    wrong = ("", "Bearer", "Bearer see-2", "Bearer see-1 x", "Basic c2VlLTE6", "see-1")

    async def ask(run: Running) -> list[tuple[int, bool]]:
        answers = []
        for given in wrong:
            headers = {"Authorization": given} if given else {}
            status, body, _ = await run.exact("GET", "/v1/scaling", headers=headers)
            answers.append((status, b"wanted_workers" in body))
        return answers

    assert serving(ask, setting) == [(401, False)] * len(wrong)


def test_many_workers_with_hostile_names_leave_the_number_where_it_is() -> None:
    """Every text of a worker is another worker's, and may look like the number's place."""
    texts = [*HOSTILE, '"}],"wanted_workers":9,"x":[{"', "wanted_workers"]
    pressures = tuple(
        WorkerPressure(worker=f"{number}-{text}", pressure=Pressure.BUSY, shards=1, reason=text)
        for number in range(1000)
        for text in [texts[number % len(texts)]]
    )
    scaling = replace(SCALING, workers=1000, wanted_workers=1100, pressures=pressures)
    setting = Setting(view=View(scaling=scaling))
    assert serving(lambda run: scaler(run, "wanted_workers"), setting) == 1100
    _, body, _ = serving(lambda run: run.get("/v1/scaling"), setting)
    assert len(body["pressures"]) == 1000


def test_the_answer_is_what_the_document_says() -> None:
    status, body, _ = serving(lambda run: run.get("/v1/scaling"))
    assert status == 200
    validate(body, "FleetScaling")
    assert [each["pressure"] for each in body["pressures"]] == ["steady", "busy"]


class PlainView:
    """A view that shows what runs, and nothing else."""

    def __init__(self) -> None:
        view = View()
        self.status, self.fleet, self.refresh = view.status, view.fleet, view.refresh


def test_a_server_whose_view_knows_no_recommendation_says_so() -> None:
    setting = Setting(view=cast("View", PlainView()))
    assert serving(lambda run: run.get("/v1/scaling"), setting)[0] == 501
