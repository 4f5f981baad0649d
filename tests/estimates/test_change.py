from pathlib import Path

import pytest
from traffic_rows import answer, priced

from perfnb import checklist
from perfnb.errors import NotMeasured, WrongUse
from perfnb.estimates import change, changes, changes_for, predict
from perfnb.finding import Finding
from perfnb.sources.traffic.policies.settings import policy_of


def finding(cause: str, share: float) -> Finding:
    return Finding("", "high", share, (), "", cause=cause)


def test_every_change_fits_causes_of_the_catalogue() -> None:
    for one in changes():
        assert one.causes, one.name
        assert set(one.causes) <= set(checklist.catalogue()), one.name


def test_changes_for_the_largest_share_come_first_and_each_once() -> None:
    found = changes_for(
        [finding("long-history", 0.2), finding("no-response-cache", 0.6), finding("large-context", 0.1)]
    )
    names = [one.name for one in found]
    assert names[:3] == ["response_cache", "semantic_cache", "history_trim"]
    assert len(names) == len(set(names))
    assert changes_for([finding("cold-start", 0.9)]) == ()


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("no_such_change", {}),
        ("output_cap", {"max_token": 3}),
        ("output_cap", {"max_tokens": 0}),
        ("output_cap", {"max_tokens": True}),
        ("output_cap", {"max_tokens": "many"}),
        ("batch_tier", {"tier": "cheap"}),
        ("route", {"from_model": "nobody*"}),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, name: str, setting: dict[str, object]) -> None:
    made = priced(tmp_path, [answer(number) for number in range(3)])
    with pytest.raises(WrongUse):
        predict(made, name, **setting)


def test_two_changes_of_one_name_are_refused() -> None:
    with pytest.raises(WrongUse):
        change("output_cap", title="", causes=())(predict)


def test_no_calls_are_not_measured(tmp_path: Path) -> None:
    made = priced(tmp_path, [])
    for one in changes():
        with pytest.raises(NotMeasured) as missing:
            predict(made, one.name)
        assert missing.value.hint, one.name


POLICIES = {
    "response_cache": {},
    "semantic_cache": {},
    "embedding_cache": {},
    "route": {"to": "small", "from_model": "big"},
    "output_cap": {},
    "context_trim": {"max_tokens": 800},
    "history_trim": {},
    "system_prompt": {"replace": "Be brief."},
    "tool_subset": {"names": ["search"]},
}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policies_are_such_as_the_proxy_takes(name: str) -> None:
    one = next(each for each in changes() if each.name == name)
    assert one.policy is not None
    policy = one.policy(one.setting(POLICIES[name]))
    assert policy
    assert len(policy_of(policy)) == 1


def test_what_the_proxy_cannot_do_has_no_policy() -> None:
    without = {one.name for one in changes() if one.policy is None}
    database = {"index", "work_mem", "vector_search", "release_connection"}
    assert without == {"prefix_cache", "streaming", "parallel_calls", "batch_tier"} | database
    route = next(each for each in changes() if each.name == "route")
    assert route.policy is not None
    assert route.policy(route.setting({"to": "small", "rule": "short question"})) is None
