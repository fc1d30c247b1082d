"""What a worker logs: one line for what is expected, a traceback for what is not."""

from __future__ import annotations

import logging
import sys
from typing import Any

from temporalio.exceptions import ApplicationError

from ckpt_engine.cli.logs import _Plain

STEP = {"activity_type": "call_tool", "workflow_id": "wf", "attempt": 2}


def record(message: str, err: Exception | None = None, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("temporalio.x", logging.WARNING, "x.py", 1, message, (), None)
    made.__dict__.update(more)
    if err is not None:
        try:
            raise err
        except Exception:
            made.exc_info = sys.exc_info()
    return made


def test_a_failure_that_explains_itself_is_one_line() -> None:
    said = _Plain().format(record("failed", ApplicationError("no key"), temporal_activity=STEP))
    assert said == "step call_tool of wf failed (attempt 2): no key"


def test_an_error_nobody_foresaw_comes_with_its_traceback() -> None:
    said = _Plain().format(record("failed", KeyError("k"), temporal_activity=STEP))
    assert said.startswith("step call_tool of wf failed (attempt 2): 'k'\nTraceback")
    assert "raise err" in said
