"""Worker versions, as far as the server knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from ..errors import InvalidRequest
from .children import pinned_to
from .contract import PINNED

if TYPE_CHECKING:
    from temporalio.client import Client

__all__ = ["check_version", "pin_version"]


async def check_version(client: Client, version: str) -> None:
    """Make sure that a workflow can be kept on a worker version; an empty one always can.

    Raises:
        InvalidRequest: The server knows no such version, or does not know of versions.
    """
    if not version:
        return
    deployment, _, build = version.partition(".")
    try:
        await client.workflow_service.describe_worker_deployment_version(
            DescribeWorkerDeploymentVersionRequest(
                namespace=client.namespace,
                deployment_version=WorkerDeploymentVersion(
                    deployment_name=deployment, build_id=build
                ),
            )
        )
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            raise InvalidRequest(
                f"the server knows no worker version {version!r}: start such a worker first, or "
                "see those there are with: temporal worker deployment describe --name "
                f"{deployment}"
            ) from None
        if err.status == RPCStatusCode.UNIMPLEMENTED:
            raise InvalidRequest("this server has no worker versions: leave version out") from None
        raise


async def pin_version(client: Client, workflow_id: str, version: str) -> None:
    """Have a workflow run by a worker version from its next task on, and tell it so."""
    override = pinned_to(version)
    assert override is not None
    await client.workflow_service.update_workflow_execution_options(
        UpdateWorkflowExecutionOptionsRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            workflow_execution_options=WorkflowExecutionOptions(
                versioning_override=override._to_proto()
            ),
            update_mask=FieldMask(paths=["versioning_override"]),
        )
    )
    await client.get_workflow_handle(workflow_id).signal(PINNED)
