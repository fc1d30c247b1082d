"""Branched experiments: many variants from one checkpoint, scored and compared.

Plain values and functions, without I/O: what an experiment is (:mod:`.spec`), what it may spend
(:mod:`.budget`), how answers are compared (:mod:`.scoring`), who won (:mod:`.verdict`), and the
record of it all (:mod:`.report`).
"""

from __future__ import annotations

from .report import Report, Score, Trial, Verdict
from .spec import ExperimentSpec

__all__ = ["ExperimentSpec", "Report", "Score", "Trial", "Verdict"]
