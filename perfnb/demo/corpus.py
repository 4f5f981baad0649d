"""Text found on every machine: the standard library's own docstrings, cut into passages, embedded and stored.

A passage is what retrieval finds; a document is all the passages of one module.
"""

import ast
import importlib.util
import json
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg

MODULES = (
    "abc argparse ast asyncio base64 bisect calendar cmd code codecs collections concurrent.futures configparser"
    " contextlib copy csv dataclasses datetime decimal difflib dis doctest email enum fileinput fnmatch fractions"
    " ftplib functools getpass gettext glob graphlib gzip hashlib heapq hmac html http imaplib inspect io ipaddress"
    " json linecache locale logging lzma mailbox mimetypes multiprocessing numbers operator optparse os pathlib pdb"
    " pickle pkgutil plistlib pprint profile queue random re sched secrets selectors shelve shlex shutil signal smtplib"
    " socket socketserver sqlite3 ssl stat statistics string subprocess symtable tarfile tempfile textwrap threading"
    " timeit tokenize trace traceback tracemalloc types typing unittest urllib uuid venv warnings wave weakref"
    " webbrowser xml zipapp zipfile zoneinfo"
)
PASSAGE_CHARACTERS = 600
SHORTEST = 120
LONGEST_DOCUMENT = 48_000
BATCH = 64
BATCHES_AT_A_TIME = 4
DIMENSIONS = 256

SCHEMA = f"""
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE documents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    module text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    about jsonb NOT NULL DEFAULT '{{"language": "en"}}',
    embedding vector({DIMENSIONS}) NOT NULL
);
CREATE TABLE sessions (
    id text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_active_at timestamptz NOT NULL DEFAULT now(),
    preferences text NOT NULL DEFAULT '{{}}'
);
CREATE TABLE messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id text NOT NULL REFERENCES sessions,
    role text NOT NULL,
    content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ratings (message_id bigint PRIMARY KEY REFERENCES messages, stars smallint NOT NULL);
CREATE TABLE flags (name text PRIMARY KEY, is_on boolean NOT NULL);
INSERT INTO flags SELECT 'flag-' || n, n % 3 = 0 FROM generate_series(1, 12) n;
"""
INDEXES = """
CREATE INDEX documents_embedding ON documents USING hnsw (embedding vector_cosine_ops);
CREATE INDEX documents_module ON documents (module);
CREATE INDEX messages_session ON messages (session_id, id);
ANALYZE;
"""


@dataclass(frozen=True)
class Passage:
    """A piece of documentation: which module it is from, what it documents, and its text."""

    module: str
    title: str
    body: str


def passages() -> tuple[Passage, ...]:
    """Return the corpus, in the same order every time: some two thousand passages from a hundred modules."""
    return of_modules(tuple(MODULES.split()))


@cache
def of_modules(modules: tuple[str, ...]) -> tuple[Passage, ...]:
    """Return the passages of these modules; what the running Python does not have is left out."""
    return tuple(passage for module in modules for passage in _of_module(module))


def _of_module(module: str) -> Iterator[Passage]:
    left = LONGEST_DOCUMENT
    for path in _sources(module):
        for title, text in _docstrings(path, module):
            for body in cut(text):
                left -= len(body)
                if left < 0:
                    return
                yield Passage(module, title, body)


def _sources(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the parent package is not there
        return []
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return []
    path = Path(spec.origin)
    return sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str]]:
    prefix = module if path.stem in ("__init__", module) else f"{module}.{path.stem}"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _named(tree, prefix)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield from _named(node, f"{prefix}.{node.name}")
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield from _named(inner, f"{prefix}.{node.name}.{inner.name}")


def _named(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, title: str
) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node) or ""
    if len(text) >= SHORTEST:
        yield title, text


def cut(text: str, size: int = PASSAGE_CHARACTERS) -> list[str]:
    """Return ``text`` in pieces of at most ``size`` characters, cut between paragraphs where that is possible."""
    pieces = [""]
    for paragraph in text.replace("\r", "").split("\n\n"):
        for part in textwrap.wrap(paragraph, size, replace_whitespace=False, drop_whitespace=False) or [""]:
            if len(pieces[-1]) + len(part) + 2 > size:
                pieces.append("")
            pieces[-1] = f"{pieces[-1]}\n\n{part}".strip()
    return [piece for piece in pieces if piece]


def embed(texts: Sequence[str], base_url: str, *, model: str = "sim-embedding") -> list[list[float]]:
    """Return an embedding for each text, asked from the provider in batches, a few at a time."""
    batches = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    with ThreadPoolExecutor(BATCHES_AT_A_TIME) as pool:
        return [vector for found in pool.map(lambda batch: _embed(batch, base_url, model), batches) for vector in found]


def _embed(texts: list[str], base_url: str, model: str) -> list[list[float]]:
    body = json.dumps({"model": model, "input": texts}).encode()
    request = urllib.request.Request(f"{base_url}/embeddings", data=body, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return [each["embedding"] for each in json.load(response)["data"]]


def embedded(base_url: str) -> list[tuple[Passage, list[float]]]:
    """Return the corpus, each passage with its embedding."""
    found = passages()
    return list(zip(found, embed([f"{each.title}\n{each.body}" for each in found], base_url), strict=True))


def fill(dsn: str, rows: Sequence[tuple[Passage, Sequence[float]]]) -> None:
    """Make the tables and indexes and store passages with their embeddings."""
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA)
        with connection.cursor().copy("COPY documents (module, title, body, embedding) FROM STDIN") as copy:
            for passage, vector in rows:
                text = f"[{','.join(f'{value:.6g}' for value in vector)}]"
                copy.write_row((passage.module, passage.title, passage.body, text))
        connection.execute(INDEXES)
