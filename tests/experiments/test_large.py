"""The large experiment of the benchmarks, small enough for every day."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.experiments import LIMIT


def test_many_variants_end_within_the_limits() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.experiments", "24", "6"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["done"] == 1
    assert found["steps"] == 24 * 6
    assert 1 < found["most"] <= LIMIT
    assert found["end_mb"] < 1.3 * found["quarter_mb"]
