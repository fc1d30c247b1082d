"""What a model call can cost at most, reserved from a trial's lease before the call is made.

The most a request can cost is counted, not guessed: a token is at least one byte, so a request
reads no more tokens than it has bytes, and it writes no more than ``max_tokens``, which is lowered
to what the lease still pays for. An attempt that was lost counts as if it had cost the most.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from genai_prices import Usage, calc_price
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.messages import ModelMessagesTypeAdapter as Messages
from pydantic_ai.tools import ToolDefinition
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ckpt_engine.experiments.budget import NANO, Allowance, Amount, Lease
from ckpt_engine.experiments.spec import Price

__all__ = ["Purse", "cost_of"]

_WRAPPING = 512  # tokens by which a provider may dress up a request
_USUAL_WRITES = 8192  # as many as every current model can write
_MILLION = 1_000_000


class Purse:
    """One attempt at one model call, paid from a lease.

    Args:
        lease: The lease.
        kept: What the state says of earlier steps under this lease.
        model: The model's name.
    """

    def __init__(self, lease: Lease, kept: Any, model: str) -> None:
        self._lease = lease
        self._model = model
        spent = Amount()
        if isinstance(kept, Mapping) and kept.get("lease") == lease.owner:
            spent = Amount(0, int(kept["tokens"]), int(kept["nanos"]))
        self._before = Allowance(lease, spent)
        self._lost = Amount()
        self._most = Amount()

    def settings(
        self,
        settings: Mapping[str, Any],
        messages: Sequence[ModelMessage],
        instructions: str,
        tools: Sequence[ToolDefinition],
    ) -> dict[str, Any]:
        """Reserve the most that the call can cost and return its settings, limited to that.

        Raises:
            ApplicationError: The lease does not pay for it (``budget``), or the model has no known
                price while money is limited (``no-price``).
        """
        if self._lease.tokens is None and self._lease.nanos is None:
            return dict(settings)
        reads = _most_read(messages, instructions, tools)
        attempts = activity.info().attempt - 1
        asked = settings.get("max_tokens")
        writes = self._writes(asked if isinstance(asked, int) else _USUAL_WRITES, reads, attempts)
        if writes >= 1:
            most = self._amount(reads, writes)
            lost = Amount(0, most.tokens * attempts, most.nanos * attempts)
            if self._before.after(lost).fits(most):
                self._most, self._lost = most, lost
                return {**settings, "max_tokens": writes}
        left = ", ".join(
            f"{self._before.left(unit):,} {word}"
            for unit, word in (("tokens", "tokens"), ("nanos", "billionths of a dollar"))
            if self._before.left(unit) is not None
        )
        raise ApplicationError(
            f"the budget is used up: {left} left, and the next request may read {reads:,} tokens",
            self.charged(),
            type="budget",
            non_retryable=True,
        )

    def settle(self, response: ModelResponse) -> dict[str, Any]:
        """Return what to keep in the state: everything spent under the lease so far."""
        usage = response.usage
        cost = Amount(0, usage.input_tokens + usage.output_tokens, 0)
        if not cost.tokens:
            cost = self._most  # the provider does not say
        elif self._lease.nanos is not None:
            cost = self._amount(usage.input_tokens, usage.output_tokens)
        spent = self._before.after(self._lost).after(cost).spent
        return {"lease": self._lease.owner, "tokens": spent.tokens, "nanos": spent.nanos}

    def charged(self) -> dict[str, int]:
        """Return what a failed attempt, and those before it, may have cost, with all before."""
        spent = self._before.after(self._lost).after(self._most).spent
        return {"tokens": spent.tokens, "nanos": spent.nanos}

    def failed(self, err: ApplicationError) -> NoReturn:
        """Raise a failure of the call, saying what it may have cost."""
        raise ApplicationError(
            err.message,
            self.charged(),
            type=err.type,
            non_retryable=err.non_retryable,
            next_retry_delay=err.next_retry_delay,
        ) from err

    def _writes(self, asked: int, reads: int, attempts: int) -> int:
        """Return how many tokens the response may have."""
        affordable = [asked]
        if (left := self._before.left("tokens")) is not None:
            affordable.append(left // (attempts + 1) - reads)
        if (nanos := self._before.left("nanos")) is not None:
            each = math.ceil(self._amount(0, _MILLION).nanos / _MILLION)
            free = nanos // (attempts + 1) - self._amount(reads, 0).nanos
            affordable.append(free // each if each else asked)
        return min(affordable)

    def _amount(self, reads: int, writes: int) -> Amount:
        if self._lease.nanos is None:
            return Amount(0, reads + writes, 0)
        dollars = cost_of(self._model, reads, writes, self._lease.prices, most=True)
        if dollars is None:
            raise ApplicationError(
                unpriced(self._model),
                {"tokens": self._before.spent.tokens, "nanos": self._before.spent.nanos},
                type="no-price",
                non_retryable=True,
            )
        return Amount(0, reads + writes, math.ceil(dollars * NANO))


def unpriced(model: str) -> str:
    """Return what is said where money is limited and a model has no price."""
    return (
        f"no price is known of the model {model}, so a budget of money cannot hold: "
        "put its price under `prices` in the specification"
    )


def cost_of(
    model: str, reads: int, writes: int, prices: Mapping[str, Price], *, most: bool = False
) -> Decimal | None:
    """Return what so many tokens cost in US dollars; ``None`` where no price is known.

    Args:
        model: Its name, with its provider as in ``openai:gpt-5-mini``.
        reads: Tokens read.
        writes: Tokens written.
        prices: Prices that go before the public ones.
        most: Suppose the dearest way of reading, into a cache.
    """
    if (own := prices.get(model)) is not None:
        each = Decimal(str(own.input)) * reads + Decimal(str(own.output)) * writes
        return each / _MILLION
    provider, _, name = model.rpartition(":")
    try:
        usages = [Usage(input_tokens=reads, output_tokens=writes)]
        if most:
            usages.append(Usage(input_tokens=reads, cache_write_tokens=reads, output_tokens=writes))
        by = provider.removesuffix("-chat") or None
        return max(calc_price(usage, name, provider_id=by).total_price for usage in usages)
    except (LookupError, ValueError):
        return None


def _most_read(
    messages: Sequence[ModelMessage], instructions: str, tools: Sequence[ToolDefinition]
) -> int:
    told = [
        {"name": t.name, "description": t.description, "parameters": t.parameters_json_schema}
        for t in tools
    ]
    texts = len(json.dumps(told).encode()) + len(instructions.encode())
    return len(Messages.dump_json(list(messages))) + texts + _WRAPPING
