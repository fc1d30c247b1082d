"""Steps whose bodies run in a process pool: the step's memory goes there and back by pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from temporalio.worker import ExecuteActivityInput

from ..errors import Unstorable
from .context import SentScope, Step, StepChanges, current_scope

__all__ = ["InOtherProcess", "runs_elsewhere"]


def runs_elsewhere(input: ExecuteActivityInput) -> bool:
    """Whether the body of an activity runs in another process than the worker."""
    if input.executor is None or isinstance(input.executor, ThreadPoolExecutor):
        return False
    fn = input.fn
    return not (
        iscoroutinefunction(fn) or iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    )


@dataclass(frozen=True)
class Returned:
    """What comes back from the other process."""

    result: Any
    changes: StepChanges


@dataclass(frozen=True)
class InOtherProcess:
    """Takes the place of an activity's function, with what ``current_step`` is to give it there."""

    fn: Callable[..., Any]
    step: Step

    def __call__(self, *args: Any) -> Returned:
        """Run the function in the step's context, which ends with it.

        Raises:
            Unstorable: What it added cannot come back.
        """
        token = current_scope.set(SentScope(self.step))
        try:
            result = self.fn(*args)
        finally:
            current_scope.reset(token)
        changes = self.step.changes()
        try:
            pickle.dumps(changes)
        except Exception as err:  # noqa: BLE001 - whatever a foreign object's pickling raises
            raise Unstorable(
                f"what the step added cannot be sent back from its process ({err}): messages and "
                "state are plain JSON values"
            ) from None
        return Returned(result, changes)
