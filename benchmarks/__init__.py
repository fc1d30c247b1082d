"""The promised figures, measured side by side with peers in one run."""
