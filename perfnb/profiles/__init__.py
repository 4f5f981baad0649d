"""Collapsed stacks and flame graphs; pure once sampled."""
