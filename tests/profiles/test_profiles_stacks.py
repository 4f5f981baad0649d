"""Collapsed stacks are read, pruned, added up and compared."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.profiles.stacks import (
    collapsed,
    difference,
    frames,
    gathered,
    origin,
    parse,
    pruned,
    short_path,
    table,
    total,
    totals,
)

PY_SPY = """\
thread (25817): MainThread;<module> (app.py:13);run (asyncio/runners.py:190);blocking (app.py:7) 18
thread (25817): MainThread;<module> (app.py:13);run (asyncio/runners.py:190);EpollSelector.select (selectors.py:468) 51

# a comment
<module> (my app.py:1);outer.<locals>.<lambda> (a (copy)/b.py:5) 2\r
main 3
 34
"""

APP = {("main", "load", "parse"): 60, ("main", "load"): 20, ("main", "answer"): 19, ("main", "answer", "rare"): 1}


def test_what_py_spy_writes_is_read() -> None:
    parsed = parse(PY_SPY)
    assert parsed.bad_lines == ()
    assert sorted(parsed.stacks.values()) == [2, 3, 18, 34, 51]
    assert parsed.stacks[("main",)] == 3
    assert parsed.stacks[("(no Python frames)",)] == 34
    assert ("<module> (my app.py:1)", "outer.<locals>.<lambda> (a (copy)/b.py:5)") in parsed.stacks


@pytest.mark.parametrize(
    "line", ["no number", "main", "; 12", " ;;  5", "main -3", "main 1.5", "main 1e9", "main x 7y"]
)
def test_a_line_that_is_no_stack_is_told_with_its_number(line: str) -> None:
    parsed = parse(f"main 1\n{line}\nmain 2")
    assert parsed.stacks == {("main",): 3}
    assert parsed.bad_lines == ((2, line.strip()),)


frame = st.text(
    st.characters(exclude_characters=";", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1
).filter(lambda text: not text.startswith("#"))
stacks = st.dictionaries(st.lists(frame, min_size=1, max_size=8).map(tuple), st.integers(1, 10**12), max_size=20)


@settings(deadline=None)
@given(stacks)
def test_what_is_written_is_read_back(made: dict[tuple[str, ...], int]) -> None:
    text = "\n".join(f"{collapsed(stack)} {samples}" for stack, samples in made.items())
    parsed = parse(text)
    assert parsed.stacks == made
    assert parsed.bad_lines == ()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_taken_and_every_line_is_a_stack_or_told(text: str) -> None:
    meant = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]
    parsed = parse(text)
    assert len(parsed.bad_lines) + sum(bool(parse(line).stacks) for line in meant) == len(meant)
    assert all(all(stack) for stack in parsed.stacks)


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_a_frame_never_breaks_its_line(names: list[str]) -> None:
    line = collapsed(tuple(names))
    assert len(frames(line)) == len(names)
    assert "\n" not in line


@settings(deadline=None)
@given(stacks, st.floats(0, 1))
def test_pruning_keeps_every_sample_and_hides_only_what_is_rare(made: dict[tuple[str, ...], int], share: float) -> None:
    result = pruned(made, smallest_share=share)
    assert total(result.stacks) == total(made)
    before, after = totals(made), totals(result.stacks)
    floor = share * total(made)
    assert after == {node: samples for node, samples in before.items() if samples >= floor}
    assert result.hidden_nodes == len(before) - len(after)
    assert 0 <= result.hidden_share <= 1


def test_pruning_tells_what_it_hid() -> None:
    result = pruned(APP, smallest_share=0.02)
    assert result.stacks == {("main", "load", "parse"): 60, ("main", "load"): 20, ("main", "answer"): 20}
    assert (result.hidden_nodes, result.hidden_share) == (1, 0.01)
    assert str(result) == "1 rare frames with 1.0% of the samples hidden"
    assert str(pruned(APP)) == "nothing hidden"
    assert pruned({}).stacks == {}


def test_self_and_total_time() -> None:
    rows = {row.frame: (row.self_samples, row.total_samples, row.total_share) for row in table(APP)}
    assert rows == {
        "parse": (60, 60, 0.6),
        "load": (20, 80, 0.8),
        "answer": (19, 20, 0.2),
        "rare": (1, 1, 0.01),
        "main": (0, 100, 1.0),
    }
    assert [row.frame for row in table(APP)] == ["parse", "load", "answer", "rare", "main"]
    assert table({}) == ()


def test_recursion_counts_once() -> None:
    (row,) = table({("f", "f", "f"): 10})
    assert (row.self_samples, row.total_samples, row.total_share) == (10, 10, 1.0)


def test_a_difference_compares_shares_not_samples() -> None:
    assert all(change.self_change == 0 for change in difference({("a",): 1, ("b",): 1}, {("a",): 50, ("b",): 50}))
    changes = difference({("a",): 90, ("b",): 10}, {("a",): 10, ("c",): 10})
    assert [(change.frame, round(change.self_change, 3)) for change in changes] == [
        ("c", 0.5),
        ("a", -0.4),
        ("b", -0.1),
    ]
    assert difference({}, {}) == ()
    (gone,) = difference({("a",): 1}, {})
    assert (gone.total_before, gone.total_after) == (1.0, 0.0)


def test_rows_of_a_recording_are_gathered() -> None:
    assert gathered([("a;b", 2), ("a;b", 3), ("a", 1)]) == {("a", "b"): 5, ("a",): 1}


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/srv/shop/app/main.py", "app/main.py"),
        ("/usr/lib/python3.11/json/decoder.py", "python3.11/json/decoder.py"),
        ("/home/alice/.pyenv/versions/3.13.1/lib/python3.13t/asyncio/events.py", "python3.13t/asyncio/events.py"),
        ("/srv/.venv/lib/python3.11/site-packages/openai/_base_client.py", "site-packages/openai/_base_client.py"),
        ("/usr/lib/python3/dist-packages/apt/cache.py", "dist-packages/apt/cache.py"),
        ("/home/alice/app.py", "app.py"),
        ("/home/alice/shop/app.py", "shop/app.py"),
        ("/Users/alice/app.py", "app.py"),
        ("/root/app.py", "app.py"),
        ("C:\\Users\\alice\\app.py", "app.py"),
        ("C:\\shop\\app.py", "shop/app.py"),
        ("/app.py", "app.py"),
        ("app.py", "app.py"),
        ("/opt/python3.11/shop/app.py", "shop/app.py"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
        ("<string>", "<string>"),
        ("", ""),
    ],
)
def test_paths_are_short_and_without_a_home(path: str, short: str) -> None:
    assert short_path(path) == short


def test_the_own_home_is_left_out_wherever_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    assert short_path(str(tmp_path / "alice" / "app.py")) == "app.py"


@pytest.mark.parametrize(
    ("frame", "whose"),
    [
        ("answer (app/main.py:3)", "app"),
        ("answer (queue/worker.py)", "python"),  # told by name alone, as in a file from elsewhere
        ("create (site-packages/openai/_base_client.py:1)", "package"),
        ("loads (python3.11/json/__init__.py:346)", "python"),
        ("loads (json/__init__.py:346)", "python"),
        ("select (selectors.py:468)", "python"),
        ("_find (<frozen importlib._bootstrap>:2)", "python"),
        ("main", "app"),
        ("json", "app"),
        ("", "app"),
    ],
)
def test_whose_code_a_frame_is(frame: str, whose: str) -> None:
    assert origin(frame) == whose
