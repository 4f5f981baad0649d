from pathlib import Path

import pytest
from builders import call, recording, request

from perfnb.budgets import Budget, budget_alerts
from perfnb.errors import WrongUse
from perfnb.recording import Recording

DAY_MS = 86_400_000


def spent(folder: Path, *usd: float, every_ms: float = DAY_MS / 4) -> Recording:
    """Return a recording of requests that cost ``usd`` each, evenly over a quarter of a day each."""
    calls, requests = [], []
    for turn, dollars in enumerate(usd):
        at = turn * every_ms
        calls.append(call(at, 1000, input_tokens=round(dollars * 1e6), output_tokens=0))
        requests.append(request(at, every_ms))
    made = recording(folder, calls=calls, requests=requests)
    made.manifest["prices"] = [{"model": "*", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}]
    return made


@pytest.mark.parametrize(
    ("budget", "level"),
    [
        (Budget(usd_per_day=0.9), "passed"),  # 1 dollar was spent in a quarter of a day
        (Budget(usd_per_day=3.9), "projected"),
        (Budget(usd_per_day=4.1), "near"),
        (Budget(usd_per_day=4.9), "near"),
        (Budget(usd_per_day=5.1), None),
        (Budget(usd_per_day=4.1, alert_at=1), None),
        (Budget(usd_per_month=119), "projected"),
        (Budget(usd_per_month=121), "near"),
        (Budget(usd_per_month=151), None),
        (Budget(usd_per_request=0.9), "passed"),
        (Budget(usd_per_request=1.2), "near"),
        (Budget(usd_per_request=1.3), None),
        (Budget(usd_per_day=0), "passed"),
        (Budget(), None),
    ],
)
def test_which_budget_is_passed_or_about_to_be(tmp_path: Path, budget: Budget, level: str | None) -> None:
    alerts = budget_alerts(spent(tmp_path, 1.0), budget)
    assert [alert.level for alert in alerts] == ([level] if level else [])


def test_an_alert_tells_what_was_spent_and_what_it_comes_to(tmp_path: Path) -> None:
    (alert,) = budget_alerts(spent(tmp_path, 1.0, 2.0), Budget(usd_per_day=5))
    assert (alert.budget, alert.level, alert.budget_usd) == ("usd_per_day", "projected", 5)
    assert alert.projected_usd == pytest.approx(6)
    assert alert.message.endswith("$6.00 a day at this rate; budget $5.00")
    assert "day and night" in alert.assumption


def test_a_mean_request_counts_and_the_dear_ones_are_counted(tmp_path: Path) -> None:
    (alert,) = budget_alerts(spent(tmp_path, 1.0, 3.0), Budget(usd_per_request=1.5))
    assert alert.spent_usd == pytest.approx(2)
    assert "1 of 2 cost more" in alert.message


def test_an_empty_recording_alerts_nobody(tmp_path: Path) -> None:
    assert budget_alerts(recording(tmp_path, calls=[]), Budget(1, 1, 1)) == ()


def test_budgets_come_from_the_settings(tmp_path: Path) -> None:
    assert Budget.load(tmp_path) == Budget()
    (tmp_path / "perfnb.toml").write_text("[budget]\nusd_per_day = 5\nusd_per_request = 0.01\nalert_at = 0.5\n")
    assert Budget.load(tmp_path) == Budget(usd_per_day=5, usd_per_request=0.01, alert_at=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "usd_per_week = 5",
        "usd_per_day = -1",
        'usd_per_day = "5"',
        "usd_per_day = true",
        "usd_per_day = nan",
        "alert_at = 80",
    ],
)
def test_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "perfnb.toml").write_text(f"[budget]\n{text}\n")
    with pytest.raises(WrongUse) as refused:
        Budget.load(tmp_path)
    assert "usd_per_request" in refused.value.hint


def test_budgets_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "perfnb.toml").write_text("budget = 5\n")
    with pytest.raises(WrongUse):
        Budget.load(tmp_path)
