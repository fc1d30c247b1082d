"""The versions, in order; a published one never changes."""
