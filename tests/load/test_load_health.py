import pytest

from perfnb.load import Health, Limits


@pytest.mark.parametrize(
    ("health", "median_ms", "said"),
    [
        (Health(), 100, None),
        (Health(late_p99_ms=4.9), None, None),
        (Health(late_p99_ms=5.1), None, "5.1 ms late"),
        (Health(late_p99_ms=5.1), 100, "5.0 ms is allowed"),
        (Health(late_p99_ms=20), 1000, None),
        (Health(late_p99_ms=51), 1000, "50.0 ms is allowed"),
        (Health(busy=0.95), 1000, "busy 95%"),
        (Health(unsent=1), 1000, "1 requests could not be sent"),
        (Health(lag_max_ms=500), 1000, None),
    ],
)
def test_the_generators_verdict_on_itself(health: Health, median_ms: float | None, said: str | None) -> None:
    told = health.limited_by(median_ms)
    assert (told is None) if said is None else (told is not None and said in told)


def test_limits_can_be_set() -> None:
    assert Health(late_p99_ms=50).limited_by(10, Limits(late_ms=60)) is None


def test_figures_of_a_block() -> None:
    health = Health.of([0.0] * 98 + [1.0, 9.0], [], busy=0.5)
    assert (health.late_p50_ms, health.late_max_ms, health.lag_max_ms) == (0.0, 9.0, 0.0)
    assert 1 <= health.late_p99_ms < 9
    assert Health.from_dict(health.as_dict()) == health
