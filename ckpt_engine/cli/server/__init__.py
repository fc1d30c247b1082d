"""Find, obtain, start and stop a Temporal development server."""
