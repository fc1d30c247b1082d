"""One line in an existing application: ``Client.connect(..., plugins=[CheckpointPlugin(url)])``."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    Interceptor,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ..errors import EngineClosed
from .checkpoints import EngineActivities
from .interceptor import _BLOB_LIMIT, CheckpointActivityInbound, Runtime
from .policy import Policies, StepPolicy
from .workflow_side import CheckpointWorkflowInbound

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine, SnapshotConfig

__all__ = ["CheckpointPlugin"]


class CheckpointPlugin(SimplePlugin):
    """Makes every activity of an application's workflows a checkpointed step.

    Give it to the client; workers made from that client have it too. The engine is opened when
    the first worker starts and closed when the last one has stopped.

    Args:
        engine_url: Where the checkpoints are kept, such as ``sqlite:///checkpoints.db``.
        config: How the engine takes snapshots.
        policies: Activity type (or ``type@queue``, or ``*``) to what is a step and what is kept.
        max_result_bytes: Largest encoded result of a step; above it the step fails, clearly and
            not retryably, with nothing stored. The server's own limit by default.
    """

    def __init__(
        self,
        engine_url: str,
        *,
        config: SnapshotConfig | None = None,
        policies: Mapping[str, StepPolicy] | None = None,
        max_result_bytes: int = _BLOB_LIMIT,
    ) -> None:
        self._engine_url = engine_url
        self._config = config
        self._policies = Policies(dict(policies or {}))
        self._max_result_bytes = max_result_bytes
        self._runtime: Runtime | None = None
        self._workers = 0
        super().__init__(
            "ckpt-engine",
            interceptors=[_Interceptor(self._open_runtime, self._policies)],
            activities=list(EngineActivities(self._open_runtime).all()),
            workflow_runner=_pass_through,
        )

    @property
    def engine(self) -> CheckpointEngine:
        """The open engine of a running worker.

        Raises:
            EngineClosed: No worker is running.
        """
        return self._open_runtime().engine

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            raise EngineClosed("no worker with this plugin is running")
        return self._runtime

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Keep the engine open while the worker runs."""
        from ckpt_engine import create_checkpoint_engine

        if self._runtime is None:
            engine = await create_checkpoint_engine(self._engine_url, self._config)
            self._runtime = Runtime(engine, worker.client, self._policies, self._max_result_bytes)
        self._workers += 1
        try:
            await next(worker)
        finally:
            self._workers -= 1
            if self._workers == 0:
                runtime, self._runtime = self._runtime, None
                await runtime.engine.close()


class _Interceptor(Interceptor):
    def __init__(self, runtime: Callable[[], Runtime], policies: Policies) -> None:
        self._runtime = runtime
        self._inbound = type("Inbound", (CheckpointWorkflowInbound,), {"policies": policies})

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return CheckpointActivityInbound(next, self._runtime)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,
    ) -> type[WorkflowInboundInterceptor]:
        return self._inbound


def _pass_through(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Let workflows share our modules with the worker, as they share the SDK's."""
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner or SandboxedWorkflowRunner()
    restrictions = runner.restrictions.with_passthrough_modules("ckpt_engine", "pydantic")
    return dataclasses.replace(runner, restrictions=restrictions)
