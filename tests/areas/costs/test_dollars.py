"""What calls cost, on all of them and on a part of very many."""

from pathlib import Path

import pytest
from builders import call, every, request
from cost_calls import of_model, priced

from perfnb.areas.dollars import _spending
from perfnb.areas.slow.caching import paid_again
from perfnb.attribution.money import prepare_money


def test_a_part_of_very_many_requests_stands_for_all(tmp_path: Path) -> None:
    calls = every(2000, 400, lambda at: call(at + 10, 900, **of_model("mini")))
    made = prepare_money(priced(tmp_path, calls=calls, requests=every(2000, 400, lambda at: request(at, 1000))))
    whole, part = _spending(made), _spending(made, most_calls=100)
    assert (whole.one_in, part.one_in) == (1, 4)
    assert 60 < len(part.calls) < 140
    assert part.share(part.calls["cost"].head(len(part.calls) // 2).sum()) == pytest.approx(0.5, abs=0.02)
    for told in ("per_request", "per_day"):
        assert getattr(part, told)(part.total) == pytest.approx(getattr(whole, told)(whole.total), rel=0.4)
    assert "judged on one request in 4" in part.told(part.total)
    assert "judged on" not in whole.told(whole.total)


def test_what_came_again_is_known_from_all_calls(tmp_path: Path) -> None:
    """Each prompt comes twice, so that a part of the requests rarely holds both."""
    calls = [call(n * 2000 + 10, 900, prompt_digest=f"prompt{n // 2}", **of_model("mini")) for n in range(400)]
    made = prepare_money(priced(tmp_path, calls=calls, requests=every(2000, 400, lambda at: request(at, 1000))))
    part = made.derived("spending", lambda: _spending(made, most_calls=100))
    assert part.share(paid_again(made)["cost"].sum()) == pytest.approx(0.5, abs=0.15)
