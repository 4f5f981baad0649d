"""Postgres as a source: statements, sessions, objects and counters, read in read-only transactions."""
