import hashlib
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import NotInstalled
from perfnb.tokens import count_tokens, encoding, estimated_tokens, rank_folders

PLANTED = Path(__file__).parent / "planted"
sys.path.insert(0, str(PLANTED))
import tiny_encodings as tiny  # noqa: E402


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def ranks(folder: Path, name: str = "", content: bytes = tiny.RANKS) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (name or hashlib.sha1(tiny.ADDRESS.encode()).hexdigest())).write_bytes(content)
    return (folder,)


@pytest.mark.parametrize("name", ["", "tiny_base.tiktoken"])
@pytest.mark.parametrize("kind", ["tiny_base", "tiny_harmony"])
def test_a_rank_file_in_a_folder_is_read(tmp_path: Path, name: str, kind: str) -> None:
    found = encoding(kind, (tmp_path / "empty", *ranks(tmp_path / "ranks", name)), "tiny_encodings")
    assert found.encode_ordinary("abba") == [2, 1, 0]
    assert found.name == kind


def test_nothing_is_written_and_tiktokens_own_loader_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    own = tiny.load_tiktoken_bpe
    encoding("tiny_base", ranks(tmp_path / "ranks"), "tiny_encodings")
    assert tiny.load_tiktoken_bpe is own
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"YQ== 0\n", tiny.RANKS + b"YmI= 3\n"])
def test_a_file_that_is_not_what_its_name_says_is_not_used(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotInstalled, match="no rank file") as missing:
        encoding("tiny_base", ranks(tmp_path, content=content), "tiny_encodings")
    assert str(tmp_path) in missing.value.hint


@pytest.mark.parametrize(
    ("kind", "module"), [("tiny_old", "tiny_encodings"), ("tiny_new", "tiny_encodings"), ("x", "no_such_module")]
)
def test_what_cannot_be_had_offline_is_said(tmp_path: Path, kind: str, module: str) -> None:
    with pytest.raises(NotInstalled):
        encoding(kind, ranks(tmp_path), module)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("gpt-5-mini", "no rank file o200k_base.tiktoken here"),
        ("openai/gpt-oss-120b", "no rank file o200k_base.tiktoken here"),
        ("text-embedding-3-small", "no rank file cl100k_base.tiktoken here"),
        ("claude-sonnet-4-5", "no tokenizer of claude-sonnet-4-5 is known"),
        ("", "no tokenizer of  is known"),
    ],
)
def test_without_rank_files_counts_are_estimates_and_say_so(tmp_path: Path, model: str, reason: str) -> None:
    counted = count_tokens("nine characters, and more", model, folders=[tmp_path])
    assert counted.tokens == 7
    assert counted.is_estimate
    assert counted.method == f"estimate, characters / 4: {reason}"


@given(st.text())
def test_an_estimate_is_a_quarter_of_the_characters_rounded_up(text: str) -> None:
    assert len(text) / 4 <= estimated_tokens(text) < len(text) / 4 + 1


def test_the_users_folder_comes_first() -> None:
    assert rank_folders({"TIKTOKEN_CACHE_DIR": "mine", "DATA_GYM_CACHE_DIR": "other"})[0] == Path("mine")


@pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed")
@pytest.mark.parametrize(("model", "tokens"), [("gpt-5-mini", 4), ("gpt-4", 4), ("gpt-oss-120b", 4)])
def test_litellms_rank_files_are_found(model: str, tokens: int) -> None:
    counted = count_tokens("hello there, world", model)
    assert (counted.tokens, counted.is_estimate) == (tokens, False)
