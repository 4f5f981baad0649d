"""The postmortem: redaction, the exporter and its template."""

from perfnb.report.document import postmortem

__all__ = ["postmortem"]
