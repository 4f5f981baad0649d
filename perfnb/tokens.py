"""How many tokens a text has, without the network: tiktoken where its rank files are at hand, else an estimate.

A provider's own count comes first wherever there is one; this is for texts nobody counted. tiktoken would download its
rank files; here they are only looked for: in its cache folder (``TIKTOKEN_CACHE_DIR``), and in an installed litellm,
which ships them. There is no public tokenizer of Claude or Gemini, so their texts are estimated always.
"""

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfnb.errors import NotInstalled

if TYPE_CHECKING:
    import tiktoken

CHARACTERS_PER_TOKEN = 4
"""English text in current tokenizers (code and other languages have fewer); an estimate, scaled to the provider's own
count where there is one."""

ENCODINGS = "tiktoken_ext.openai_public"


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a text, and how they were counted."""

    tokens: int
    method: str
    is_estimate: bool


def count_tokens(text: str, model: str, *, folders: Sequence[Path] | None = None) -> TokenCount:
    """Return the tokens of ``text`` for ``model``: exact where the tokenizer is known and its file is in ``folders``.

    ``folders`` are :func:`rank_folders` unless given. Never asks the network.
    """
    places = tuple(rank_folders() if folders is None else folders)
    try:
        found = encoding(_encoding_name(model), places)
    except NotInstalled as missing:
        return TokenCount(estimated_tokens(text), f"estimate, characters / 4: {missing.message}", True)
    return TokenCount(len(found.encode_ordinary(text)), f"tiktoken {found.name}", False)


def estimated_tokens(text: str) -> int:
    """Return the tokens a text of that length usually has; an estimate."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def rank_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return where tiktoken's rank files may lie, its own folder first."""
    named = environment.get("TIKTOKEN_CACHE_DIR") or environment.get("DATA_GYM_CACHE_DIR")
    folders = [Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"]
    litellm = find_spec("litellm")
    if litellm is not None and litellm.origin:
        root = Path(litellm.origin).parent
        folders += [root / "litellm_core_utils" / "tokenizers", root / "llms" / "tokenizers"]
    return folders


@cache
def encoding(name: str, folders: tuple[Path, ...], module: str = ENCODINGS) -> "tiktoken.Encoding":
    """Return tiktoken's encoding ``name`` from a rank file in ``folders``; raises NotInstalled where there is none.

    The module that declares encodings is loaded a second time, privately, with a loader that reads files alone: its own
    would download what it does not find, and look for its folder in the environment of the whole process.
    """
    import tiktoken

    spec = find_spec(module)
    if spec is None or spec.loader is None:
        raise NotInstalled(f"{module} is missing", hint="pip install tiktoken")
    declared: Any = module_from_spec(spec)
    spec.loader.exec_module(declared)
    declared.load_tiktoken_bpe = _reader(folders)
    declared.data_gym_to_mergeable_bpe_ranks = _refuse
    constructor = declared.ENCODING_CONSTRUCTORS.get(name)
    if constructor is None:
        raise NotInstalled(f"tiktoken has no encoding {name}", hint="pip install --upgrade tiktoken")
    return tiktoken.Encoding(**constructor())


def _encoding_name(model: str) -> str:
    from tiktoken.model import encoding_name_for_model

    try:
        return encoding_name_for_model(model.rsplit("/", 1)[-1])
    except KeyError:
        raise NotInstalled(f"no tokenizer of {model} is known", hint="counts are estimates") from None


def _reader(folders: Sequence[Path]) -> Callable[..., dict[bytes, int]]:
    def read(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        names = (hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest(), address.rsplit("/", 1)[-1])
        for path in (folder / name for folder in folders for name in names):
            data = _bytes_of(path)
            if data is not None and expected_hash in (None, hashlib.sha256(data).hexdigest()):
                return _ranks(data, path)
        raise NotInstalled(f"no rank file {names[1]} here", hint=f"put it into {folders[0] if folders else 'a folder'}")

    return read


def _refuse(*_: Any, **__: Any) -> dict[bytes, int]:
    raise NotInstalled("the tokenizer of GPT-2 is not read", hint="counts are estimates")


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _ranks(data: bytes, path: Path) -> dict[bytes, int]:
    try:
        pairs = (line.split() for line in data.splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error):
        raise NotInstalled(f"{path} is no rank file", hint="remove it") from None
