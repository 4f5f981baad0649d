"""What a recording is: when, how long, what it holds; the first thing a notebook shows."""

from typing import TYPE_CHECKING

from perfnb.recording import TABLES, Recording
from perfnb.widgets import wording
from perfnb.widgets.cards import Tile, tiles_piece
from perfnb.widgets.html import Piece, render

if TYPE_CHECKING:
    import pandas as pd

    from perfnb.incident import Incident

STATES = {
    "sealed": "complete",
    "live": "still being written: what the cells show stands still while you work with it, incident.renew() takes what came since",
    "interrupted": "cut off, nothing acknowledged is lost; incident.seal() closes it",
}


def about(incident: "Incident") -> Piece:
    """Return the recording's name, window, state and row counts."""
    recording = incident.snapshot
    window = recording.window
    tiles = [Tile(name, f"{rows:,}") for name, rows in row_counts(recording).items() if rows]
    lines = [
        f"{recording.name}: {wording.moment(window.start)} to {wording.clock(window.end)} UTC, {wording.duration(window.seconds * 1000)}",
        f"State: {STATES[incident.state]}",
        f"Message contents: {'kept in full' if recording.content == 'full' else 'digests only'}",
        *(["Simulated: the model provider is a simulation, so are its times"] if incident.is_simulated else []),
        *([f"{wording.counted(torn, 'torn line')} skipped"] if (torn := recording.torn_lines) else []),
    ]
    piece = tiles_piece(tiles)
    return Piece(render("about", lines=lines, tiles=piece.html), "\n".join([*lines, piece.text]))


def row_counts(recording: Recording) -> dict[str, int]:
    """Return how many rows each table holds."""
    sql = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS rows FROM {name}" for name in TABLES)
    frame: pd.DataFrame = recording.query(sql)
    counts = dict(zip(frame["name"], frame["rows"], strict=True))
    return {name.replace("_", " "): int(counts[name]) for name in TABLES}
