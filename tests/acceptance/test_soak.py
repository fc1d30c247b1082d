"""Workers killed at random while they work: a few here, a thousand by ``make soak``."""

from __future__ import annotations

import os
import random

import pytest

from .conftest import Stage
from .soak import Soak

KILLS = int(os.environ.get("SOAK_KILLS", "20"))
LONG = KILLS > 100
SEED = int(os.environ.get("SOAK_SEED", random.randrange(10**6) if LONG else 1))


@pytest.mark.timeout(120 + 2 * KILLS)
async def test_kills_at_random_leave_no_doubles_and_no_losses(stage: Stage) -> None:
    agents, workers = (64, 6) if LONG else (32, 4)
    soak = Soak(stage, kills=KILLS, agents=agents, workers=workers, seed=SEED)
    figures = await soak.run()
    print(f"seed {SEED}: {figures}")  # noqa: T201 - shown by `make soak`
    assert figures.clean, figures
    assert figures.kills >= KILLS
