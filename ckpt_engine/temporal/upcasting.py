"""Seeds that an older version of the application wrote, as today's version has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..model import CheckpointInfo
from .contract import Overrides

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["seed_content"]


async def seed_content(
    engine: CheckpointEngine, seeds: Sequence[CheckpointInfo], overrides: Overrides
) -> dict[str, Any]:
    """Return what a child's first checkpoint holds, as arguments of its ``StepCommit``.

    Raises:
        InvalidRequest: A seed is newer than this version of the application, or ``upcast`` failed.
    """
    current, upcast = engine.config.schema_version, engine.config.upcast
    versions = [int(seed.metadata.get("schema", 0)) for seed in seeds]
    if current and max(versions) > current:
        raise InvalidRequest(
            f"step {seeds[-1].step} was written with schema version {max(versions)}, and this "
            f"worker knows versions up to {current}: use a newer worker"
        )
    patch = overrides.state_patch()
    if upcast is None or min(versions) >= current:
        return {"append": overrides.messages, "state_set": patch}
    content = await engine.join([seed.id for seed in seeds])
    try:
        messages, state = upcast(content.messages, content.state, min(versions))
        return {"messages": [*messages, *overrides.messages], "state": {**state, **patch}}
    except Exception as err:
        raise InvalidRequest(
            f"upcast from schema version {min(versions)} to {current} failed for step "
            f"{seeds[-1].step}: {type(err).__name__}: {err}"
        ) from err
