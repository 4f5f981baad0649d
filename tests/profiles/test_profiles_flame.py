"""The flame graph is well-formed, escaped, deterministic and tells what it leaves out."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.profiles.flame import WIDTH, flame
from perfnb.profiles.stacks import totals

SVG = "{http://www.w3.org/2000/svg}"
APP = {("main (a.py:1)", "load (a.py:2)"): 80, ("main (a.py:1)", "loads (json/__init__.py:3)"): 20}


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def test_every_frame_has_a_box_as_wide_as_its_share_and_a_tooltip() -> None:
    root = ElementTree.fromstring(flame(APP))
    boxes = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    widths = {}
    for box in boxes:
        name = (box.findtext(f"{SVG}title") or "").split("\n")[0]
        rect = box.find(f"{SVG}rect")
        assert rect is not None
        widths[name] = float(rect.attrib["width"]) / WIDTH
    assert widths == pytest.approx(
        {"main (a.py:1)": 1, "load (a.py:2)": 0.8, "loads (json/__init__.py:3)": 0.2}, abs=0.002
    )
    assert "load (a.py:2)\n80 samples, 80.0% of all" in titles(flame(APP))


def test_it_is_an_image_with_a_name_and_without_scripts_or_addresses() -> None:
    svg = flame(APP, title="Before the change")
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert "Before the change" in root.attrib["aria-label"]
    assert "100 samples" in root.attrib["aria-label"]
    assert "<script" not in svg
    assert "href" not in svg
    assert svg.count("http") == 1  # the namespace


def test_it_says_what_it_leaves_out() -> None:
    svg = flame({("main",): 9999, ("main", "rare"): 1})
    assert "10,000 samples; 1 rare frames with 0.0% of the samples hidden" in svg
    assert not any("rare" in title for title in titles(svg))


def test_nothing_sampled_is_said_so() -> None:
    assert "no samples" in flame({})
    ElementTree.fromstring(flame({}))
    assert "no samples" in flame({("main",): 0})


def test_colours_tell_whose_code_it_is_and_the_legend_says_it_in_words() -> None:
    svg = flame({("app (a.py:1)",): 1, ("x (site-packages/x/y.py:1)",): 1, ("loads (python3.11/json/a.py:1)",): 1})
    for words in ("app", "installed packages", "Python itself"):
        assert f">{words}</text>" in svg
    fills = {rect.attrib["fill"] for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect")}
    assert len(fills) == 3


def test_a_comparison_tells_points_by_which_shares_changed() -> None:
    before = {("main", "slow"): 80, ("main", "fast"): 20}
    after = {("main", "slow"): 10, ("main", "fast"): 10}
    told = "".join(titles(flame(after, before=before)))
    assert "slow\n10 samples, 50.0% of all, -30.0 points" in told
    assert "fast\n10 samples, 50.0% of all, +30.0 points" in told
    assert "main\n20 samples, 100.0% of all, +0.0 points" in told
    assert "more than before" in flame(after, before=before)
    assert "100.0 points" in "".join(titles(flame({("new",): 1}, before={("old",): 1})))


@pytest.mark.parametrize("title", ["<script>alert(1)</script>", "a & b \"c\" 'd'", "\x00\x1b\ud800\uffff"])
def test_a_title_stays_text(title: str) -> None:
    svg = flame(APP, title=title)
    ElementTree.fromstring(svg)
    assert "<script" not in svg
    svg.encode()


frames = st.text(min_size=1, max_size=30) | st.just("</title><script>x</script>")
stacks = st.dictionaries(st.lists(frames, min_size=1, max_size=6).map(tuple), st.integers(1, 10**6), max_size=15)


@settings(deadline=None)
@given(stacks, st.none() | stacks)
def test_any_stacks_draw_and_stay_text(
    made: dict[tuple[str, ...], int], before: dict[tuple[str, ...], int] | None
) -> None:
    svg = flame(made, before=before)
    root = ElementTree.fromstring(svg.encode())
    assert not list(root.iter(f"{SVG}script"))
    assert len(titles(svg)) <= len(totals(made))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.attrib["width"]) >= 0
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= WIDTH + 0.01


@settings(deadline=None)
@given(stacks)
def test_the_order_of_stacks_changes_nothing(made: dict[tuple[str, ...], int]) -> None:
    assert flame(made) == flame(dict(reversed(made.items())))


def test_deep_recursion_draws() -> None:
    svg = flame({tuple(f"f{depth}" for depth in range(900)): 5})
    assert len(titles(svg)) == 900
