"""The tuning as a whole, on an engine whose recall and latency are known."""

import json
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_engine import ROWS, KnownEngine, asked, rising

from perfnb.errors import NotMeasured, NotReachable, WrongUse
from perfnb.recording import Recording
from perfnb.tuner import Tuning, TuningProgress, curve, tune, tuned_points, tunings
from perfnb.tuner.figures import recall_curve


def test_the_cheapest_that_is_surely_enough_is_picked() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(), target=0.95)
    assert tuning.pick is not None
    assert tuning.pick.settings["ef"] in (100, 150)  # recall 0.962 and 0.983; 80 has 0.941
    assert (tuning.pick.is_met, tuning.pick.is_proven) == (True, True)
    assert tuning.pick.point.part == "held back"
    assert tuning.share_of_grid <= 1 / 3
    assert "10.00 ms" in tuning.pick.why


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (KnownEngine(lambda ef: 0.6), "no setting of the index reaches"),
        (KnownEngine(rising(20), exact_ms=0.5), "is no faster"),
        (
            KnownEngine(rising(20), ms_at=lambda ef: 9.5),
            "is no faster",
        ),  # a tenth slower is still better: no index to keep
        (KnownEngine(rising(20), values=()), "no vector index is used"),
        (KnownEngine(rising(20), unused_from=0), "no vector index is used"),
    ],
)
def test_no_index_is_an_answer(engine: KnownEngine, why: str) -> None:
    tuning = tune(engine, asked())
    assert tuning.pick is not None
    assert not tuning.pick.settings
    assert why in tuning.pick.why
    assert "no index needed" in tuning.headline


def test_values_at_which_the_planner_scans_are_left_out() -> None:
    tuning = tune(KnownEngine(rising(20), unused_from=300), asked())
    assert tuning.frame["value"].max() < 300
    assert any("leaves the index from ef = 300 on" in each for each in tuning.not_measured)


def test_without_latency_the_least_value_is_the_cheapest() -> None:
    tuning = tune(KnownEngine(rising(20), no_latency="too slow a protocol"), asked())
    assert tuning.pick is not None
    assert tuning.pick.settings["ef"] in (100, 150)
    assert tuning.pick.point.p50_ms is None
    assert "latency: too slow a protocol" in tuning.not_measured


def test_few_queries_are_enough_for_a_guess_that_is_called_so() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(40))
    assert (tuning.choosing, tuning.held_back) == (20, 20)
    assert tuning.pick is not None
    assert not tuning.pick.is_proven
    assert "too few queries" in tuning.pick.why


def test_a_pick_that_fails_on_held_back_queries_moves_up() -> None:
    """The queries held back are harder, which is not known to the choice."""
    engine = KnownEngine(rising(20))
    searched = engine.search
    hard: set[float] = set()

    def search(vector: Any, limit: int, setting: Any, condition: Any) -> Any:
        engine.recall_at = rising(60 if vector[0] in hard else 20)
        return searched(vector, limit, setting, condition)

    engine.search = search  # type: ignore[method-assign]
    first = tune(engine, asked())
    assert first.pick is not None
    from perfnb.tuner.questions import questions

    found, split, _ = questions(engine, asked())
    hard |= {float(found[at].vector[0]) for at in split.verify}
    second = tune(engine, asked())
    assert second.pick is not None
    assert second.pick.settings["ef"] > first.pick.settings["ef"]
    assert any("took part in the choice" in each for each in second.not_measured)


def test_rows_drawn_from_the_table_are_said_to_be_easier() -> None:
    tuning = tune(KnownEngine(rising(20)))
    assert "easier than real questions" in tuning.queries
    assert any("keeps no query vectors" in each for each in tuning.not_measured)


def test_each_filter_is_tuned_and_those_with_too_few_rows_are_told() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(), filters=[500, 5], filter_column="tenant", selectivities=(0.1,))
    assert [each.filter for each in tuning.picks] == ["all rows", "a filter (500) (1)", "tenant on 10 %"]
    assert any("5 rows meet it" in each for each in tuning.not_measured)
    assert list(tuning.picked["filter"]) == [each.filter for each in tuning.picks]


def test_a_filter_with_fewer_rows_than_the_limit_counts_those_there_are() -> None:
    tuning = tune(KnownEngine(lambda ef: 1.0), asked(), filters=[12], k=12)
    assert tuning.picks[1].point.recall == 1.0


@pytest.mark.parametrize("ending", ["stop", "interrupt", "gone"])
def test_whatever_ends_it_what_was_measured_is_kept(ending: str) -> None:
    stop = threading.Event()

    def before(number: int) -> None:
        if number < 100:
            return
        if ending == "stop":
            stop.set()
        elif ending == "interrupt":
            raise KeyboardInterrupt
        else:
            raise NotReachable("the store went away")

    tuning = tune(KnownEngine(rising(20), before_search=before), asked(), stop=stop)
    assert tuning.ended in ("stopped on request", "interrupted", "the store went away")
    assert tuning.pick is None
    assert tuning.frame["queries"].sum() >= 100
    assert tuning.ended in str(tuning)


def test_progress_is_told_after_a_while() -> None:
    told: list[TuningProgress] = []
    seconds = iter(range(10_000))
    pace = import_module("perfnb.tuner.run")._pace(told.append, None, None, clock=lambda: float(next(seconds)))
    for _ in range(5):
        pace.step("all rows: ef = 40")
    assert told
    assert told[0].seconds > 2
    assert told[-1].searches == 5


@pytest.mark.parametrize(("k", "target"), [(0, 0.9), (10, 0.0), (10, 1.0), (10, 95)])
def test_nonsense_is_refused(k: int, target: float) -> None:
    with pytest.raises(WrongUse):
        tune(KnownEngine(rising(20)), asked(), k=k, target=target)


@pytest.mark.parametrize("queries", [[[1.0, 2.0]], [[1.0, 2.0, 3.0]] * 10, [[float("nan"), 1.0]] * 10, [[[1.0]]] * 10])
def test_queries_that_fit_not_are_refused(queries: Any) -> None:
    with pytest.raises(WrongUse):
        tune(KnownEngine(rising(20)), queries)


@pytest.mark.parametrize("name", ["questions.npy", "questions.json", "questions.jsonl"])
def test_queries_come_from_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, np.asarray(asked(60), np.float32))
    else:
        lines = [json.dumps(each) for each in asked(60)]
        path.write_text("\n".join(lines) if name.endswith("jsonl") else f"[{','.join(lines)}]")
    assert tune(KnownEngine(rising(20)), path).queries == "given, 60 of them"


def test_a_file_that_holds_no_vectors_or_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.json").write_text("[[1, 2")
    for name in ("objects.npy", "broken.json", "missing.npy"):
        with pytest.raises(WrongUse, match=name):
            tune(KnownEngine(rising(20)), tmp_path / name)


def test_candidates_of_another_engine_are_told_not_measured() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(), candidates=["halfvec"])
    assert any("only pgvector" in each for each in tuning.not_measured)
    assert "unknown candidates: hnswlib" in tune(KnownEngine(rising(20)), asked(), candidates=["hnswlib"]).ended


def test_a_tuning_goes_through_the_timeline(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "one.perfnb")
    with pytest.raises(NotMeasured):
        tunings(recording)
    tuning = tune(KnownEngine(rising(20)), asked(), recording=recording)
    (found,) = tunings(recording)
    assert json.dumps(found.as_dict()) == json.dumps(tuning.as_dict())
    assert Tuning.from_dict(tuning.as_dict()) == tuning
    assert list(tuned_points(recording)["is_pick"]).count(True) == 1
    drawn = recall_curve.of(recording)
    assert "is enough" in str(drawn.figure.layout.title.text)  # type: ignore[union-attr]


def test_the_curve_shows_every_setting_once_with_its_interval() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(), filters=[500])
    for filter_ in ("all rows", "a filter (500)"):
        chart = curve(tuning, filter_)
        settings = tuning.frame.query("filter == @filter_")["setting"]
        assert sorted(chart.frame["setting"]) == sorted(settings.unique())
        assert "95 % intervals" in chart.alt
        assert chart.as_json()["data"]
    hidden = curve(tune(KnownEngine(rising(20), no_latency="no"), asked()))
    assert hidden.figure.layout.xaxis.title.text == "setting"


def test_a_cell_shows_the_picks_and_a_terminal_the_same() -> None:
    tuning = tune(KnownEngine(rising(20)), asked(), filters=[500])
    shown = tuning._repr_mimebundle_()
    assert "a filter (500)" in shown["text/html"]
    assert "docs.embedding" in shown["text/html"]
    assert shown["text/plain"] == str(tuning)


def test_the_same_seed_makes_the_same_choice() -> None:
    one, two = (tune(KnownEngine(rising(30)), asked(), seed=4) for _ in range(2))
    assert one.points == two.points
    assert one.described["rows"] == ROWS
