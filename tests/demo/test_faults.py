import json
from dataclasses import fields
from pathlib import Path

import pytest

import perfnb.demo
from perfnb.checklist import catalogue
from perfnb.demo.app.settings import Settings, changed
from perfnb.demo.database import Job
from perfnb.demo.faults import FAULTS, Fault, merged, named
from perfnb.demo.network import Way
from perfnb.demo.provider.conditions import Conditions
from perfnb.demo.workload import Habits
from perfnb.errors import WrongUse

EVERY = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def test_every_cause_of_waiting_and_of_costs_can_be_staged() -> None:
    assert {cause.cause for cause in catalogue().values() if cause.area in ("slow", "costs")} <= set(FAULTS)


@EVERY
def test_a_fault_names_causes_of_the_catalogue(fault: Fault) -> None:
    assert {fault.cause, *fault.consequences} <= set(catalogue())
    assert fault.area == catalogue()[fault.cause].area
    assert fault.cause not in fault.consequences


@EVERY
def test_a_fault_changes_something_that_there_is(fault: Fault) -> None:
    assert changed(Settings(), fault.app) != Settings() or not fault.app
    assert Conditions.of(fault.provider) != Conditions() or not fault.provider
    assert Habits(**fault.workload) != Habits() or not fault.workload
    assert not fault.network or Way(**fault.network)
    assert fault.app or fault.provider or fault.network or fault.database
    assert set(fault.database) <= {"settings", "sql", "jobs"}
    assert all(Job(**told).sql for told in fault.database.get("jobs", ()))
    json.dumps([fault.app, fault.provider, fault.workload, fault.network, fault.database])


def test_the_healthy_app_differs_from_every_fault() -> None:
    changes = [
        json.dumps([f.app, f.provider, f.workload, f.network, f.database, f.begins_at], sort_keys=True)
        for f in FAULTS.values()
    ]
    assert len(set(changes)) == len(FAULTS)


def test_no_cause_is_named_where_a_check_could_read_it() -> None:
    folder = Path(perfnb.demo.__file__).parent
    told = {path: path.read_text() for path in folder.rglob("*.py") if path.parent.name != "faults"}
    found = [(path.name, cause) for path, text in told.items() for cause in FAULTS if f'"{cause}"' in text]
    assert found == []
    assert set(FAULTS).isdisjoint(each.name for each in fields(Settings))


def test_faults_are_found_by_name() -> None:
    assert [fault.cause for fault in named(["slow-model", "no-retry"])] == ["slow-model", "no-retry"]
    with pytest.raises(WrongUse, match="no fault for bad-luck"):
        named(["bad-luck"])


def test_faults_add_up_unless_they_contradict_each_other() -> None:
    assert merged([{"a": 1}, {"b": 2}, {"a": 1}]) == {"a": 1, "b": 2}
    with pytest.raises(WrongUse, match="two faults set model"):
        merged(fault.app for fault in named(["slow-model", "deep-reasoning"]))
