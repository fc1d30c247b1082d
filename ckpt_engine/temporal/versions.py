"""Worker versions, as far as the server knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentVersionRequest
from temporalio.service import RPCError, RPCStatusCode

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from temporalio.client import Client

__all__ = ["check_version"]


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
