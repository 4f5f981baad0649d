"""The area database: what statements, indexes, connections and vector searches cost, and why."""
