"""Sources of evidence: each probes, starts, yields rows and stops."""
