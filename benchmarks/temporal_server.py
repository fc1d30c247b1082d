"""A Temporal server for one group of figures, found or obtained as the command line does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.cli.reporter import TextReporter
from ckpt_engine.cli.server.search import find_executable
from ckpt_engine.cli.settings import Settings

__all__ = ["quiet_runtime", "temporal_server"]


@asynccontextmanager
async def temporal_server() -> AsyncIterator[str]:
    """Run a development server until the block is left; yields its address."""
    settings = Settings()
    executable = await find_executable(
        TextReporter(), cache=settings.cache, named=settings.temporal_cli
    )
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(executable),
        dev_server_log_level="error",
        dev_server_extra_args=[
            "--dynamic-config-value",
            "system.enableActivityEagerExecution=true",
        ],
    )
    try:
        yield env.client.service_client.config.target_host
    finally:
        await env.shutdown()


def quiet_runtime() -> Runtime:
    """Return a runtime of the SDK that says only what is wrong: plain workflows make it warn."""
    only_errors = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=only_errors)))
