"""Vector stores as the tuner sees them."""
