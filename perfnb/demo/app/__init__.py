"""The demo app: a support desk that answers questions about Python from its documentation, as people write such apps."""
