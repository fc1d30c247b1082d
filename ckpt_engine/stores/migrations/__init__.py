"""The schema's history, run by Alembic: one file a version, the same for every database."""
