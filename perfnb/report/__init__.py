"""The postmortem: redaction, the exporter and its template."""
