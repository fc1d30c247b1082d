"""Which server the commands talk to, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CliError, Exit

if TYPE_CHECKING:
    from temporalio.envconfig import ClientConnectConfig

__all__ = ["Connection", "answers", "choose", "given"]

CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Connection:
    """How to reach a server.

    Attributes:
        config: Keyword arguments of ``Client.connect``; ``target_host`` is always there.
        source: Where that was found, in words.
        ui: The address of its web page, where it is known.
    """

    config: ClientConnectConfig
    source: str
    ui: str | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return self.config["target_host"]

    @property
    def namespace(self) -> str:
        """The namespace; ``default`` when none is given."""
        return self.config.get("namespace", "default")


def given(
    address: str | None = None,
    namespace: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection | None:
    """Return the connection that the user names, or ``None``.

    Args:
        address: The option; over everything else.
        namespace: The option; over the profile's.
        environ: The environment; the process's when absent.

    Raises:
        CliError: Temporal's configuration file or environment cannot be read.
    """
    from temporalio.envconfig import ClientConfig

    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=environ)
    except (RuntimeError, ValueError) as err:
        raise CliError(
            f"Temporal's own settings cannot be read: {err}",
            "correct TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE or the file",
            Exit.NO_SERVER,
        ) from None
    if namespace:
        config["namespace"] = namespace
    if address:
        config["target_host"] = address
        return Connection(config, "the option --address")
    if "target_host" in config:
        return Connection(config, "TEMPORAL_ADDRESS or Temporal's configuration file")
    return None


async def choose(home: Path, address: str | None, namespace: str | None) -> Connection:
    """Return the server to talk to: the given one, ours that runs, or Temporal's usual address.

    Raises:
        CliError: None of them answers.
    """
    from .process import recorded

    if named := given(address, namespace):
        return named
    config: ClientConnectConfig = {"namespace": namespace} if namespace else {}
    if (ours := recorded(home)) and await answers(ours.address):
        return Connection({**config, "target_host": ours.address}, "ckpt's own server", ours.ui)
    if await answers("127.0.0.1:7233"):
        return Connection({**config, "target_host": "127.0.0.1:7233"}, "Temporal's usual address")
    raise CliError(
        "no Temporal server answers on this machine",
        "start one with `ckpt up`, or set TEMPORAL_ADDRESS",
        Exit.NO_SERVER,
    )


async def answers(address: str, *, within: float = CONNECT_SECONDS) -> bool:
    """Return whether a Temporal server answers at a plain-text address."""
    from temporalio.client import Client

    try:
        async with asyncio.timeout(within):
            await Client.connect(address)
    except (RuntimeError, TimeoutError, OSError, ValueError):
        return False
    return True
