"""What the command line reads from the environment; options override it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from ..keys import Keyring

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Settings of ``ckpt``; each is also an environment variable, such as ``CKPT_HOME``.

    Where the Temporal server is follows Temporal's own conventions instead: ``TEMPORAL_ADDRESS``,
    ``TEMPORAL_PROFILE`` and its configuration file.

    Attributes:
        home: Folder of everything that is kept: checkpoints, the development server's database.
        cache: Folder of cached Temporal executables.
        database_url: Where the checkpoints are; ``checkpoints.db`` in ``home`` when absent.
        keys: What content and payloads are encrypted with, as ``name:base64`` (see ``ckpt key``);
            nothing is encrypted when absent. Only from the environment, so that no process list
            shows it.
        task_queue: The task queue of the worker and of new agents.
        agent: The worker's agent, as ``module:object``; the shipped analyst when absent.
        temporal_cli: A Temporal executable to use and no other.
        port: The development server's port; 7233, or a free one, when absent.
        ui_port: The port of its web page; ``port`` + 1000, or a free one, when absent.
    """

    model_config = SettingsConfigDict(env_prefix="CKPT_", extra="ignore")

    home: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("ckpt-engine")))
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("ckpt-engine")) / "bin"
    )
    database_url: str = ""
    keys: SecretStr = SecretStr("")
    task_queue: str = Field(default="ckpt-agent", min_length=1)
    agent: str | None = None
    temporal_cli: str | None = None
    port: int | None = Field(default=None, ge=1, le=65_535)
    ui_port: int | None = Field(default=None, ge=1, le=65_535)

    @property
    def engine_url(self) -> str:
        """The URL of the checkpoints."""
        return self.database_url or f"sqlite:///{self.home.expanduser() / 'checkpoints.db'}"

    @property
    def shown_url(self) -> str:
        """The URL of the checkpoints, fit to be shown."""
        from ..quickstart import hide_password

        return hide_password(self.engine_url)

    def as_options(self) -> str:
        """Return the options that lead another command to the same places, or nothing."""
        from ..quickstart import hide_password

        usual, options = Settings(), ""
        if self.home != usual.home:
            options += f" --home {shlex.quote(str(self.home))}"
        if self.database_url != usual.database_url:
            options += f" --db {shlex.quote(hide_password(self.database_url))}"
        return options

    @property
    def keyring(self) -> Keyring | None:
        """The keys, if there are any.

        Raises:
            InvalidRequest: They are not written as keys are.
        """
        from ..keys import Keyring

        text = self.keys.get_secret_value()
        return Keyring.parse(text) if text else None
