"""Traffic that passes through perfnb: forwarded byte for byte, captured, and turned into rows by a process beside it."""
