"""The demo stack: app, simulated provider, Postgres, workload and faults."""
