"""Checkpoints, rewind and branch for any Temporal application."""
