"""What a worker says on stderr: a line for what is expected, a traceback for what is not."""

from __future__ import annotations

import logging

__all__ = ["set_up_logs"]


def set_up_logs() -> None:
    """Show warnings of the SDK and of the engine on stderr; before the first client is made."""
    from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    for name in ("temporalio", "ckpt_engine"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False  # the rest of logging is the user's own to set up
    usual = TelemetryFilter(core_level="WARN", other_level="ERROR").formatted()
    # A lost server is said by us in one line; the native part would say it at each retry.
    shown = LoggingConfig(filter=f"{usual},temporalio_client::retry=ERROR")
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=shown)))


class _Plain(logging.Formatter):
    """One line a record; a step's exception with its traceback where nobody foresaw it."""

    def format(self, record: logging.LogRecord) -> str:
        from temporalio.exceptions import ApplicationError

        step = getattr(record, "temporal_activity", None)
        err = record.exc_info[1] if record.exc_info else None
        if step is None or err is None:
            return super().format(record)
        line = (
            f"step {step['activity_type']} of {step['workflow_id']} failed"
            f" (attempt {step['attempt']}): {err}"
        )
        if isinstance(err, ApplicationError) or record.exc_info is None:
            return line
        return f"{line}\n{self.formatException(record.exc_info)}"
