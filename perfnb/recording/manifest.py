"""The manifest of a recording: ``recording.json`` with its schema version and how it was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import BadRecording

MANIFEST = "recording.json"


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of the recording at ``path``, its ``schema`` a number; raises BadRecording."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        return {**manifest, "schema": int(manifest["schema"])}
    except (FileNotFoundError, NotADirectoryError):
        raise BadRecording(f"{path} is no recording: it has no {MANIFEST}", hint="name a NAME.perfnb folder") from None
    except OSError as error:
        raise BadRecording(f"{path / MANIFEST} can't be read: {error.strerror}", hint="mend its permissions") from None
    except KeyError:
        raise BadRecording(f"{path / MANIFEST} names no schema", hint="restore the file from a copy") from None
    except (ValueError, TypeError) as error:
        raise BadRecording(f"{path / MANIFEST} is damaged: {error}", hint="restore the file from a copy") from None


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest in one step."""
    partial = path / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(dict(manifest), indent=2) + "\n")
    partial.rename(path / MANIFEST)
