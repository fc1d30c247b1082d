"""Workflows written as Temporal's public samples are, made rewindable by one mixin."""
