"""What every engine must do; subclass :class:`EngineContract` and say how yours is opened."""

from .contract_branching import BranchingContract
from .contract_capture import CaptureContract
from .contract_forget import ForgetContract
from .contract_retention import RetentionContract
from .contract_steps import StepContract
from .contract_verbs import VerbContract

__all__ = ["EngineContract"]


class EngineContract(
    VerbContract,
    BranchingContract,
    StepContract,
    CaptureContract,
    RetentionContract,
    ForgetContract,
):
    """The promises of :class:`~ckpt_engine.CheckpointEngine`, as tests."""
