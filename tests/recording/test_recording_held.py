from pathlib import Path

from builders import call, recording


def test_what_is_asked_while_held_agrees_however_much_is_written(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[call()])
    count = "SELECT count(*) AS n FROM llm_calls"
    with made.writer() as writer, made.held():
        before = made.derived("memo", object)
        writer.write("llm_calls", [call(5)])
        assert made.query(count)["n"].iloc[0] == 1
        assert made.derived("memo", object) is before
        with made.held():
            assert made.query(count)["n"].iloc[0] == 1
    assert made.query(count)["n"].iloc[0] == 2
    assert made.derived("memo", object) is not before
