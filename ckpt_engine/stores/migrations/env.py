"""What Alembic runs: every step up to the wanted version, in the caller's own transaction."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
