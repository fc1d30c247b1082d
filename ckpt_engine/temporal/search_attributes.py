"""The search attributes that sessions can carry, for those who look for them in Temporal."""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from .session import Session

__all__ = ["BRANCH", "KEYS", "SESSION", "THREAD", "show"]

SESSION = SearchAttributeKey.for_keyword("CkptSession")
"""Session id: the same for the root and for everything that came of it."""

THREAD = SearchAttributeKey.for_keyword("CkptThread")
"""The thread that the workflow runs."""

BRANCH = SearchAttributeKey.for_keyword("CkptBranch")
"""Its name in the session."""

KEYS = (SESSION, THREAD, BRANCH)


def show(session: Session) -> None:
    """Put a run's session, thread and branch where Temporal can search for them."""
    branch = session.seed.branch if session.seed else "main"
    workflow.upsert_search_attributes(
        [
            SESSION.value_set(session.session),
            THREAD.value_set(session.thread),
            BRANCH.value_set(branch),
        ]
    )
