"""What the LLM proxy can do to model calls while it passes them on: one module a policy, each off until it is set."""
