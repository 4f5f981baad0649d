"""Encodings as tiktoken's own module declares them, of three tokens, for tests that have no rank files."""

from typing import Any

from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

RANKS = b"YQ== 0\nYg== 1\nYWI= 2\n"  # a, b, ab
HASH = "ce5262876b2f26464c0894887acfce787c14bb3b94fbaabff74e0b46495fac7e"
ADDRESS = "https://tokens.example.com/encodings/tiny_base.tiktoken"


def tiny_base() -> dict[str, Any]:
    return {
        "name": "tiny_base",
        "pat_str": r"[ab]+",
        "mergeable_ranks": load_tiktoken_bpe(ADDRESS, expected_hash=HASH),
        "special_tokens": {"<|end|>": 3},
    }


def tiny_harmony() -> dict[str, Any]:
    return tiny_base() | {"name": "tiny_harmony"}


def tiny_old() -> dict[str, Any]:
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=ADDRESS, encoder_json_file=ADDRESS)
    return tiny_base() | {"mergeable_ranks": ranks}


ENCODING_CONSTRUCTORS = {"tiny_base": tiny_base, "tiny_harmony": tiny_harmony, "tiny_old": tiny_old}
