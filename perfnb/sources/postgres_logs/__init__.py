"""Logs of a Postgres server: slow statements, auto_explain's plans, temporary files and lock waits from stderr, csvlog
and jsonlog."""

from perfnb.sources.postgres_logs.entries import Entry, NotRead
from perfnb.sources.postgres_logs.formats import Format, format_of
from perfnb.sources.postgres_logs.rows import Messages

__all__ = ["Entry", "Format", "Messages", "NotRead", "format_of"]
