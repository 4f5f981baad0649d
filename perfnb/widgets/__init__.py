"""What panels share, each with its static twin."""
