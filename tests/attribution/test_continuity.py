"""Calls that neither trace nor text gives to one of several requests: whoever had just got so far."""

from pathlib import Path

from builders import call, failed_call, recording, request

from perfnb.attribution import calls


def owners(folder: Path, requests: list[dict], made: list[dict]) -> list[str]:
    frame = calls(recording(folder, requests=requests, calls=made)).set_index("call_id")
    return [str(frame.loc[each["call_id"], "request_id"]) for each in made]


def test_a_later_call_goes_to_the_request_whose_step_had_just_ended(tmp_path: Path) -> None:
    first, second = request(0, 5000), request(1500, 5000)
    one = [call(10, 1000), call(1020, 3000)]  # the first call of each is certain or begins with its request
    two = [call(1510, 500), call(2015, 900)]
    assert owners(tmp_path, [first, second], [*one, *two]) == [first["request_id"]] * 2 + [second["request_id"]] * 2


def test_calls_begun_together_stay_together(tmp_path: Path) -> None:
    first, second = request(0, 3000), request(1000, 3000)
    parallel = [call(1010, 800), call(1012, 900), call(1014, 700)]
    known = call(10, 2900)  # the first request waits for it all the while
    assert owners(tmp_path, [first, second], [known, *parallel])[1:] == [second["request_id"]] * 3


def test_attempts_at_one_call_are_one_requests(tmp_path: Path) -> None:
    first, second = request(0, 4000), request(1000, 1500)
    attempts = [
        failed_call(10, prompt_digest="p"),
        failed_call(1005, prompt_digest="p"),
        call(2600, 900, prompt_digest="p"),
    ]
    assert owners(tmp_path, [first, second], attempts) == [first["request_id"]] * 3


def test_the_same_prompt_of_two_users_stays_two_chains(tmp_path: Path) -> None:
    first, second = request(0, 900), request(1000, 900)
    made = [failed_call(10, prompt_digest="p"), call(1010, 800, prompt_digest="p")]
    assert owners(tmp_path, [first, second], made) == [first["request_id"], second["request_id"]]
    frame = calls(recording(tmp_path, name="chains", requests=[first, second], calls=made))
    assert frame["attempt"].tolist() == [1, 1]


def test_requests_that_make_one_call_late_have_one_each(tmp_path: Path) -> None:
    requests = [request(number * 300, 2800) for number in range(60)]
    made = [call(number * 300 + 2000, 800) for number in range(60)]
    assert len(set(owners(tmp_path, requests, made))) > 50  # at the end there are calls left and no new requests
