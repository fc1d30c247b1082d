"""One line in an existing application: ``Client.connect(..., plugins=[CheckpointPlugin(url)])``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    Interceptor,
    ReplayerConfig,
    Worker,
    WorkerConfig,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from ..errors import EngineClosed, InvalidRequest
from .attempt import BLOB_LIMIT, Runtime
from .collect import CollectWorkflow
from .engine_activities import EngineActivities
from .interceptor import CheckpointActivityInbound
from .patience import to_the_end
from .policy import Policies, StepPolicy
from .registration import register
from .runner import for_checkpoints
from .telemetry import Telemetry, build_of, meter_of
from .workflow_side import CheckpointWorkflowInbound

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine, Keyring, SnapshotConfig

__all__ = ["CheckpointPlugin"]


class CheckpointPlugin(SimplePlugin):
    """Makes every activity of an application's workflows a checkpointed step.

    Give it to the client; workers made from that client have it too. Given to a worker as well,
    or to a worker alone, it acts once. The engine is opened when the first worker starts and
    closed when the last one has stopped.

    Args:
        engine_url: Where the checkpoints are kept, such as ``sqlite:///checkpoints.db``.
        config: How the engine takes snapshots.
        keys: Encrypts the checkpoints' content at rest; give the same to an
            :class:`~ckpt_engine.temporal.EncryptionCodec` for Temporal's own payloads.
        search_attributes: Put session, thread and branch of rewindable workflows where Temporal
            can search for them (``CkptSession``, ``CkptThread``, ``CkptBranch``); a worker that
            starts registers them where the namespace lacks them. Set it on every worker of a task
            queue, or on none.
        policies: Activity type (or ``type@queue``, or ``*``) to what is a step and what is kept.
        max_result_bytes: Largest encoded result of a step; above it the step fails, clearly and
            not retryably, with nothing stored. The server's own limit by default.

    Raises:
        InvalidRequest: No kind of database is named by the URL, or a policy is none.
    """

    def __init__(
        self,
        engine_url: str,
        *,
        config: SnapshotConfig | None = None,
        keys: Keyring | None = None,
        search_attributes: bool = False,
        policies: Mapping[str, StepPolicy] | None = None,
        max_result_bytes: int = BLOB_LIMIT,
    ) -> None:
        from ckpt_engine import check_url

        check_url(engine_url)
        self._engine_url = engine_url
        self._config = config
        self._keys = keys
        self._search_attributes = search_attributes
        self._policies = Policies(dict(policies or {}))
        self._max_result_bytes = max_result_bytes
        self._engine: CheckpointEngine | None = None
        self._workers = 0
        self._opening = asyncio.Lock()
        super().__init__("ckpt-engine", workflow_runner=for_checkpoints)

    @property
    def engine(self) -> CheckpointEngine:
        """The open engine of a running worker.

        Raises:
            EngineClosed: No worker is running.
        """
        if self._engine is None:
            raise EngineClosed("no worker with this plugin is running")
        return self._engine

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add interceptors and the engine's activities, once however often it is given.

        Raises:
            InvalidRequest: The client has such a plugin already, with other settings.
        """
        known = _ours(config.get("interceptors"))
        if known is not None:
            if known.plugin._settings() != self._settings():
                raise InvalidRequest(
                    "the client and the worker have CheckpointPlugins that differ: "
                    "give one, to the client"
                )
            return config
        config = super().configure_worker(config)
        ours = _Interceptor(self)
        config["interceptors"] = [*config.get("interceptors", ()), ours]
        own = EngineActivities(ours.runtime).all()
        config["activities"] = [*config.get("activities", ()), *own]
        if config.get("workflows"):  # else it would begin to ask for workflow tasks
            config["workflows"] = [*config["workflows"], CollectWorkflow]
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Let histories be replayed as the workers made them; no engine is opened."""
        config = super().configure_replayer(config)
        if _ours(config.get("interceptors")) is None:
            config["interceptors"] = [*config.get("interceptors", ()), _Interceptor(self)]
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Keep the engine open while the worker runs."""
        ours = _ours(worker.config(active_config=True).get("interceptors"))
        if ours is None or ours.plugin is not self:
            await next(worker)
            return
        try:
            if self._search_attributes:
                await register(worker.client)
            engine = await self._open(worker.client)
        except Exception:
            # A worker that never began would let whoever stops it wait for ever.
            stopping = asyncio.create_task(worker.shutdown())
            await next(worker)
            await stopping
            raise
        ours.serve(
            Runtime(
                engine,
                worker.client,
                self._policies,
                Telemetry(meter_of(worker.client)),
                self._max_result_bytes,
                build_of(worker),
            )
        )
        try:
            await next(worker)
        finally:
            await to_the_end(self._leave())

    def _settings(self) -> tuple[object, ...]:
        return (
            self._engine_url,
            self._config,
            self._keys,
            self._search_attributes,
            self._policies,
            self._max_result_bytes,
        )

    async def _open(self, client: Client) -> CheckpointEngine:
        from ckpt_engine import create_checkpoint_engine

        async with self._opening:
            if self._engine is None:
                self._engine = await create_checkpoint_engine(
                    self._engine_url, self._config, keys=self._keys
                )
                self._engine.observe(Telemetry(meter_of(client)))
            self._workers += 1
            return self._engine

    async def _leave(self) -> None:
        async with self._opening:
            self._workers -= 1
            if self._workers == 0:
                engine, self._engine = self.engine, None
                await engine.close()


class _Interceptor(Interceptor):
    """What one worker has of a plugin."""

    def __init__(self, plugin: CheckpointPlugin) -> None:
        self.plugin = plugin
        self._runtime: Runtime | None = None
        how = {
            "policies": plugin._policies,
            "search_attributes": plugin._search_attributes,
        }
        self._inbound = type("Inbound", (CheckpointWorkflowInbound,), how)

    def serve(self, runtime: Runtime) -> None:
        """Let the worker's activities use an open engine and the worker's own client."""
        self._runtime = runtime

    def runtime(self) -> Runtime:
        """Return what the worker's activities share.

        Raises:
            EngineClosed: The worker is not running.
        """
        if self._runtime is None:
            raise EngineClosed("the worker with this plugin is not running")
        return self._runtime

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return CheckpointActivityInbound(next, self.runtime)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,
    ) -> type[WorkflowInboundInterceptor]:
        return self._inbound


def _ours(interceptors: Iterable[object] | None) -> _Interceptor | None:
    return next((i for i in interceptors or () if isinstance(i, _Interceptor)), None)
