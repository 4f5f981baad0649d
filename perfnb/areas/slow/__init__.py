"""The area slow: where the user's wait goes."""
