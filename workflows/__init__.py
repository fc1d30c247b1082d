"""Deterministic code of the shipped agent."""
