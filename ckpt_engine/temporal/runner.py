"""The SDK's runners of workflows, with what checkpoints need of them."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING

from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from .session import RESEEDING

if TYPE_CHECKING:
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation
    from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
    from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails

__all__ = ["ResetAwareRunner", "SparingSandbox", "for_checkpoints"]


class ResetAwareRunner(UnsandboxedWorkflowRunner):
    """Tells a workflow of Temporal's reset before its code runs on from there.

    The SDK lets code that a signal wakes run before it changes the seed of the workflow's random
    numbers. At the point of a reset such code would give its steps the ids they had before.
    """

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance of a workflow."""
        instance, run_id = super().create_instance(det), det.info.run_id
        activate = instance.activate

        def announced(act: WorkflowActivation) -> WorkflowActivationCompletion:
            seeds = [job.update_random_seed for job in act.jobs if _reseeds(job)]
            if seeds:
                RESEEDING[run_id] = seeds[-1].randomness_seed
            try:
                return activate(act)
            finally:
                RESEEDING.pop(run_id, None)

        instance.activate = announced  # type: ignore[method-assign]
        return instance


def _reseeds(job: object) -> bool:
    has_field: bool = job.HasField("update_random_seed")  # type: ignore[attr-defined]
    return has_field


class SparingSandbox(SandboxedWorkflowRunner):
    """The SDK's sandbox, which looks up once a workflow task whose payload one is.

    The SDK asks up to four times for each payload, and compiles and runs code in the sandbox to
    answer: about a tenth of what a step costs a worker. Only the workflow's code, in a task, can
    make the answer another one.
    """

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance of a workflow."""
        instance = super().create_instance(det)
        activate = instance.activate
        encoded_for = cache(instance.get_serialization_context)
        stored_for = cache(instance.get_external_store_context)

        def in_task(act: WorkflowActivation) -> WorkflowActivationCompletion:
            encoded_for.cache_clear()
            stored_for.cache_clear()
            return activate(act)

        instance.activate = in_task  # type: ignore[method-assign]
        instance.get_serialization_context = encoded_for  # type: ignore[method-assign]
        instance.get_external_store_context = stored_for  # type: ignore[method-assign]
        return instance


def for_checkpoints(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Let workflows share our modules with the worker, as they share the SDK's.

    A runner of the application's own is left as it is.
    """
    if runner is None:
        runner = SandboxedWorkflowRunner()
    if type(runner) is UnsandboxedWorkflowRunner:
        return ResetAwareRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    inner = runner.runner_class
    if type(runner) is SandboxedWorkflowRunner:
        runner = SparingSandbox(runner.restrictions, inner)
    return dataclasses.replace(
        runner,
        restrictions=runner.restrictions.with_passthrough_modules("ckpt_engine", "pydantic"),
        runner_class=ResetAwareRunner if inner is UnsandboxedWorkflowRunner else inner,
    )
