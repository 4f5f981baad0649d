"""The recording: typed tables on disk, written by many, read with SQL."""

from perfnb.recording.journal import Writer
from perfnb.recording.recording import Content, Recording, Window
from perfnb.recording.schema import SCHEMA_VERSION, TABLES
from perfnb.recording.snapshot import Snapshot

__all__ = ["SCHEMA_VERSION", "TABLES", "Content", "Recording", "Snapshot", "Window", "Writer"]
