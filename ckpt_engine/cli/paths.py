"""Where things are kept: one folder for the data, one for cached executables."""

from __future__ import annotations

from pathlib import Path

__all__ = ["default_cache", "default_home"]


def default_home() -> Path:
    """Return the folder of the checkpoint database and of the development server's database."""
    import platformdirs

    return Path(platformdirs.user_data_dir("ckpt-engine"))


def default_cache() -> Path:
    """Return the folder of cached Temporal executables."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("ckpt-engine")) / "bin"
