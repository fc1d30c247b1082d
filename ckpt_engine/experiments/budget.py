"""Budgets that hold: what may be spent is reserved first and settled afterwards.

An experiment's :class:`Ledger` hands each trial a :class:`Lease`, so that all leases and
everything spent never exceed a limit. Inside a trial an :class:`Allowance` does the same with
single steps: the most that a step can cost must be left of the lease before it is begun. All
amounts are whole numbers; money is counted in billionths of a dollar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict, Field

from .spec import Budget, Limits, Price

__all__ = ["NANO", "Allowance", "Amount", "Lease", "Ledger", "to_nanos"]

NANO = 1_000_000_000


def to_nanos(dollars: float) -> int:
    """Return dollars as billionths, rounded down."""
    return math.floor(dollars * NANO)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many steps, tokens and billionths of a dollar."""

    steps: int = 0
    tokens: int = 0
    nanos: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.steps + other.steps, self.tokens + other.tokens, self.nanos + other.nanos
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.steps - other.steps, self.tokens - other.tokens, self.nanos - other.nanos
        )


class Lease(BaseModel):
    """What one trial may spend; ``None`` is no limit. It travels in the memo of its workflow.

    Attributes:
        owner: The thread that it is for.
        steps: Steps, after its first checkpoint.
        tokens: Tokens.
        nanos: Billionths of a dollar.
        prices: Prices of models that have no public one.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    owner: str
    steps: int | None = None
    tokens: int | None = None
    nanos: int | None = None
    prices: dict[str, Price] = Field(default_factory=dict)

    def amount(self) -> Amount:
        """Return what it reserves."""
        return Amount(self.steps or 0, self.tokens or 0, self.nanos or 0)


@dataclass
class _Account:
    """Limits, what is spent of them, and what is reserved."""

    limits: dict[str, int]
    spent: Amount = Amount()
    reserved: Amount = Amount()

    def left(self, unit: str) -> int | None:
        limit = self.limits.get(unit)
        if limit is None:
            return None
        return limit - int(getattr(self.spent, unit)) - int(getattr(self.reserved, unit))


_UNITS = ("steps", "tokens", "nanos")


def _limits(limits: Limits) -> dict[str, int]:
    nanos = None if limits.money is None else to_nanos(limits.money)
    values = {"steps": limits.steps, "tokens": limits.tokens, "nanos": nanos}
    return {unit: value for unit, value in values.items() if value is not None}


@dataclass
class Ledger:
    """The accounts of one experiment: the total, and one for each variant.

    What is spent and reserved together never exceeds a limit, since a lease is only given out of
    what is left and nobody spends more than the lease.
    """

    budget: Budget
    prices: Mapping[str, Price] = field(default_factory=dict)
    _total: _Account = field(init=False)
    _variants: dict[str, _Account] = field(init=False, default_factory=dict)
    _leases: dict[str, tuple[str, Lease]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._total = _Account(_limits(self.budget.total))

    @property
    def keeps(self) -> bool:
        """Whether there is any limit but one on time."""
        budget = self.budget
        return any(map(_limits, (budget.total, budget.per_variant, budget.per_trial)))

    def lease(self, owner: str, variant: str, *, sharing: int) -> Lease | None:
        """Reserve what a trial may spend, or return ``None`` where not enough is left.

        Args:
            owner: The trial's thread.
            variant: Its variant; "" for what only the total pays for.
            sharing: How many trials could be begun now, this one included; without a limit per
                trial each gets that share of what is left.
        """
        accounts = self._accounts(variant)
        per_trial = _limits(self.budget.per_trial)
        granted: dict[str, int] = {}
        for unit in _UNITS:
            known = [a.left(unit) for a in accounts]
            left = min((value for value in known if value is not None), default=None)
            wanted = per_trial.get(unit)
            if left is None:
                if wanted is not None:
                    granted[unit] = wanted
                continue
            fair = max(1, left // max(1, sharing)) if wanted is None else wanted
            if left < 1 or (fair > left and any(getattr(a.reserved, unit) for a in accounts)):
                return None
            granted[unit] = min(fair, left)
        lease = Lease(owner=owner, prices=dict(self.prices), **granted)
        for account in accounts:
            account.reserved += lease.amount()
        self._leases[owner] = (variant, lease)
        return lease

    def settle(self, owner: str, spent: Amount | None) -> None:
        """Give back what a trial did not spend; ``None`` where that is not known: all is spent."""
        variant, lease = self._leases.pop(owner)
        reserved = lease.amount()
        for account in self._accounts(variant):
            account.reserved -= reserved
            account.spent += reserved if spent is None else spent

    def exhausted(self, variant: str) -> bool:
        """Whether nothing is left for a variant, even when every lease has been given back."""
        accounts = self._accounts(variant)
        return any(
            limit <= getattr(account.spent, unit)
            for account in accounts
            for unit, limit in account.limits.items()
        )

    def settled(self) -> dict[str, tuple[int, int, int]]:
        """Return what each variant has spent, and under "" what only the total paid for."""
        rest = self._total.spent
        found = {}
        for name, account in self._variants.items():
            found[name] = (account.spent.steps, account.spent.tokens, account.spent.nanos)
            rest -= account.spent
        return {**found, "": (rest.steps, rest.tokens, rest.nanos)}

    def restore(self, variant: str, spent: Amount) -> None:
        """Take over what :meth:`settled` said."""
        for account in self._accounts(variant):
            account.spent += spent

    @property
    def spent(self) -> Amount:
        """What is settled, over all."""
        return self._total.spent

    @property
    def reserved(self) -> Amount:
        """What is reserved and not settled, over all."""
        return self._total.reserved

    def _accounts(self, variant: str) -> list[_Account]:
        if not variant:
            return [self._total]
        own = self._variants.setdefault(variant, _Account(_limits(self.budget.per_variant)))
        return [self._total, own]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a lease, from one step to the next.

    Attributes:
        lease: The lease.
        spent: What was settled, and what attempts that were lost may have cost.
    """

    lease: Lease
    spent: Amount = Amount()

    def fits(self, most: Amount) -> bool:
        """Whether a step that can cost at most so much may be begun."""
        after = self.spent + most
        return all(
            (limit := getattr(self.lease, unit)) is None or getattr(after, unit) <= limit
            for unit in _UNITS
        )

    def left(self, unit: str) -> int | None:
        """Return how much is left of ``steps``, ``tokens`` or ``nanos``; ``None`` for no limit."""
        limit: int | None = getattr(self.lease, unit)
        return None if limit is None else limit - int(getattr(self.spent, unit))

    def after(self, cost: Amount) -> Allowance:
        """Return what is left once that is spent too."""
        return replace(self, spent=self.spent + cost)
