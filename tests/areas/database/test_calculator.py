"""The pool calculator begins with what was measured, changes with its controls, and has an answer to anything they can be."""

from dataclasses import replace
from itertools import product
from typing import Any

import nbformat
import pytest

from perfnb.areas.database.calculator import SLIDERS, PoolCalculator
from perfnb.areas.database.pools import PoolDemand
from perfnb.report.exporter import export
from perfnb.report.redaction import Redactor

DEMAND = PoolDemand(
    arrival_per_s=20, hold_ms=5000, sql_ms=100, in_use=100, in_use_peak=15, open_peak=15, max_connections=100, reserved=3,
    others=2,
)  # fmt: skip


def controls_of(calculator: PoolCalculator, changed: Any = lambda: None) -> dict[str, Any]:
    box: Any = calculator._controls(changed)
    return {control.description: control for control in box.children}


def test_it_begins_with_what_was_measured() -> None:
    calculator = PoolCalculator(DEMAND)
    assert calculator.given["arrival_per_s"] == 20
    assert calculator.given["pool_size"] == 15
    assert calculator.advice.needed_now == pytest.approx(100)
    assert calculator.advice.needed_released == pytest.approx(2)


def test_every_number_has_a_control_within_its_bounds() -> None:
    controls = controls_of(PoolCalculator(DEMAND))
    assert list(controls) == [each.title for each in SLIDERS]
    for each in SLIDERS:
        assert each.least <= controls[each.title].value <= each.most
        assert controls[each.title].tooltip or controls[each.title].description


def test_what_was_measured_beyond_a_bound_starts_at_the_bound() -> None:
    controls = controls_of(PoolCalculator(replace(DEMAND, arrival_per_s=90_000, hold_ms=0, open_peak=900)))
    assert controls["requests a second"].value == 500
    assert controls["connections in each one's pool"].value == 200


def test_a_control_changes_the_answer_and_tells_the_page() -> None:
    told: list[str] = []
    calculator = PoolCalculator(DEMAND)
    controls = controls_of(calculator, lambda: told.append(str(calculator.answer)))
    before = str(calculator.answer)
    controls["ms a request keeps a connection"].value = 20
    controls["of them waiting for something else"].value = 0
    assert len(told) == 2
    assert told[-1] != before
    assert calculator.advice.needed_now == pytest.approx(0.4)


def test_waiting_for_something_else_is_never_more_than_the_hold() -> None:
    calculator = PoolCalculator(DEMAND)
    calculator.given |= {"hold_ms": 10, "outside_ms": 20_000}
    assert calculator.advice.needed_released <= calculator.advice.needed_now


@pytest.mark.parametrize("corner", list(product((0, 1), repeat=len(SLIDERS))))
def test_any_extreme_has_an_answer(corner: tuple[int, ...]) -> None:
    calculator = PoolCalculator(DEMAND)
    calculator.given = {each.name: each.most if end else each.least for each, end in zip(SLIDERS, corner, strict=True)}
    said = str(calculator.answer)
    assert said[0].isupper()
    assert "nan" not in said.split("\n")[0]
    assert "inf" not in said.split("\n")[0]


def test_without_a_known_limit_the_servers_own_is_taken() -> None:
    assert PoolCalculator(replace(DEMAND, max_connections=None)).advice.server_takes == 95


def test_a_page_shows_the_answer_and_what_it_was_reckoned_for() -> None:
    calculator = PoolCalculator(DEMAND)
    bundle = calculator.bundle(calculator._controls(lambda: None))
    outputs = [
        nbformat.v4.new_output("display_data", data=bundle),
        nbformat.v4.new_output("display_data", data=calculator.answer._repr_mimebundle_()),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("panel.pool(incident)", outputs=outputs)])
    page = export(notebook, Redactor())
    assert "requests a second 20, ms a request keeps a connection 5,000" in page
    assert "What the guides' pools come to" in page.replace("&#39;", "'").replace("&#x27;", "'")
