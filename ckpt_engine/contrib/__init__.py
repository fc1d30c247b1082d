"""Adapters for other libraries, each behind an extra."""
