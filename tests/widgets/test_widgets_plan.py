"""The plan viewer: the same facts as a page and as text, nothing of a plan is ever markup, and it can be looked at."""

import re
from html import unescape
from pathlib import Path

import pytest
from browser import launched, needs_chromium

from perfnb.plans import compare, plan_of, read_plan
from perfnb.report.sanitise import clean
from perfnb.widgets.html import style
from perfnb.widgets.plan import MOST_STEPS, ComparedPlans, PlanView, facts, steps

REAL = Path(__file__).parent.parent / "plans" / "real"
NAMES = sorted(path.name for path in REAL.iterdir())


def real(name: str) -> PlanView:
    return PlanView(read_plan((REAL / name).read_text()), "Where time goes")


@pytest.mark.parametrize("name", NAMES)
def test_page_and_text_tell_the_same(name: str) -> None:
    view = real(name)
    for step in steps(view.plan):
        for told in (step.name, step.rows, step.expected, step.amount, *step.warnings):
            assert told in view.text
            assert told in view.html.unescape()
    assert all(fact in view.text for fact in facts(view.plan))


def test_the_tree_is_drawn() -> None:
    lines = str(real("18_cte.txt")).splitlines()
    drawn = [line[54:] for line in lines if "─ " in line]
    assert drawn[0].startswith("├─ CTE recent: Index Scan using tickets_by_opened on tickets tickets_1")
    assert drawn[1].startswith("│  └─ InitPlan 2: Result")
    assert drawn[-1].startswith("   └─ Index Only Scan")


def test_shares_add_up() -> None:
    assert sum(step.share for step in steps(real("18_parallel_spill.txt").plan)) == pytest.approx(1)


def test_rows_and_by_how_much_they_are_off() -> None:
    by_name = {step.name: step for step in steps(real("13_cte_on_disk.txt").plan)}
    join = by_name["Merge Left Join"]
    assert (join.rows, join.expected, join.off) == ("7,200", "2,000,000", "278× fewer")
    assert "work_mem did not suffice" in by_name["CTE Scan on recent r"].warnings[0]


def test_a_plan_that_was_not_executed_shows_cost() -> None:
    view = real("15_psql_generic.txt")
    assert "cost alone" in view.html
    assert "rows</th>" not in view.html
    assert facts(view.plan) == ["not executed; cost 215 as the planner reckons"]


def test_what_never_ran_says_so() -> None:
    plan = plan_of({"Node Type": "Append", "Actual Loops": 1, "Actual Rows": 0, "Actual Total Time": 1.0, "Plans": [
        {"Node Type": "Seq Scan", "Alias": "t", "Actual Loops": 0, "Actual Rows": 0, "Parent Relationship": "Member"}]})  # fmt: skip
    assert "Seq Scan on t (never executed)" in str(PlanView(plan))
    assert 'class="never"' in PlanView(plan).html


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_in_a_plan_is_markup() -> None:
    node = {"Node Type": EVIL, "Relation Name": EVIL, "Alias": EVIL, "Index Name": EVIL, "Filter": EVIL,
            "Subplan Name": EVIL, "Plan Rows": 1, "Total Cost": 1}  # fmt: skip
    plan = plan_of({"Plan": node, "Settings": {EVIL: EVIL}})
    for piece in (PlanView(plan, EVIL), ComparedPlans(compare(plan, plan), (EVIL, EVIL))):
        assert "<script" not in piece.html
        assert "<img" not in piece.html


def test_an_export_keeps_all_of_it() -> None:
    html = real("18_cte.txt").html
    kept, made = (re.sub(r"\s+|/>|></rect>", "", unescape(each)) for each in (clean(html), html))
    assert kept == made


def test_long_plans_are_cut_and_counted() -> None:
    scans = [{"Node Type": "Seq Scan", "Alias": f"t{number}", "Parent Relationship": "Member"} for number in range(400)]
    view = PlanView(plan_of({"Node Type": "Append", "Plans": scans}))
    assert f"{401 - MOST_STEPS} more steps not shown" in view.html
    assert f"{401 - MOST_STEPS} more steps not shown" in view.text


def test_two_plans_side_by_side() -> None:
    before, after = (read_plan((REAL / name).read_text()) for name in ("13_cte_on_disk.txt", "18_cte.txt"))
    view = ComparedPlans(compare(before, after), ("Version 13", "Version 18"))
    assert view.html.count('class="pnb-plan"') == 2
    for change in view.compared.changes:
        assert change in view.text
        assert change in view.html.unescape()


class TestInABrowser:
    pytestmark = needs_chromium

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_lies_within_its_page(self, scheme: str) -> None:
        before, after = (read_plan((REAL / name).read_text()) for name in ("13_cte_on_disk.txt", "18_cte.txt"))
        body = real("18_parallel_spill.txt").html + ComparedPlans(compare(before, after)).html
        page_of = f"<!doctype html><style>{style()}</style><body><div class='pnb'>{body}</div>"
        with launched() as browser:
            page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
            page.set_content(page_of)
            assert page.locator(".pnb-plan").count() == 3
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1]
            page.set_viewport_size({"width": 390, "height": 800})
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1]
