"""Whatever happens, what is spent and reserved never exceeds a limit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ckpt_engine.experiments.budget import Allowance, Amount, Lease, Ledger, to_nanos
from ckpt_engine.experiments.spec import Budget, Limits

SMALL = st.integers(1, 40)
LIMITS = st.builds(
    Limits,
    steps=st.none() | SMALL,
    tokens=st.none() | SMALL,
    money=st.none() | SMALL.map(lambda cents: cents / 100),
)


def test_without_limits_nothing_is_kept() -> None:
    assert not Ledger(Budget()).keeps
    assert not Ledger(Budget(total=Limits(seconds=5))).keeps
    assert Ledger(Budget(per_trial=Limits(steps=5))).keeps


def test_a_lease_is_a_fair_share_and_what_is_left_of_it_comes_back() -> None:
    ledger = Ledger(Budget(total=Limits(tokens=100)))
    first = ledger.lease("one", "a", sharing=4)
    assert first == Lease(owner="one", tokens=25)
    ledger.settle("one", Amount(tokens=5))
    assert ledger.lease("two", "a", sharing=1) == Lease(owner="two", tokens=95)
    assert ledger.lease("three", "b", sharing=1) is None
    assert not ledger.exhausted("b")  # it may come back
    ledger.settle("two", None)
    assert ledger.exhausted("b")


def test_a_variant_has_limits_of_its_own() -> None:
    ledger = Ledger(Budget(total=Limits(steps=100), per_variant=Limits(steps=10)))
    assert ledger.lease("one", "a", sharing=1) == Lease(owner="one", steps=10)
    assert ledger.lease("two", "a", sharing=1) is None
    assert ledger.lease("three", "b", sharing=1) == Lease(owner="three", steps=10)
    ledger.settle("one", Amount(steps=10))
    assert ledger.exhausted("a")
    assert not ledger.exhausted("b")


def test_it_goes_on_where_it_was() -> None:
    budget = Budget(total=Limits(tokens=100), per_variant=Limits(tokens=60))
    ledger = Ledger(budget)
    for owner, variant, spent in (("1", "a", 30), ("2", "b", 20), ("3", "", 10)):
        ledger.lease(owner, variant, sharing=2)
        ledger.settle(owner, Amount(tokens=spent))
    again = Ledger(budget)
    for variant, amount in ledger.settled().items():
        again.restore(variant, Amount(*amount))
    assert again.spent == ledger.spent == Amount(tokens=60)
    assert again.lease("4", "a", sharing=1) == ledger.lease("4", "a", sharing=1)


class Spending(RuleBasedStateMachine):
    """Leases are asked for and settled in any order; a trial spends at most its lease."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger | None = None
        self.open: dict[str, Lease] = {}
        self.number = 0
        self.by_variant: dict[str, Amount] = {}

    @rule(total=LIMITS, per_variant=LIMITS, per_trial=LIMITS)
    def begin(self, total: Limits, per_variant: Limits, per_trial: Limits) -> None:
        if self.ledger is None:
            self.budget = Budget(total=total, per_variant=per_variant, per_trial=per_trial)
            self.ledger = Ledger(self.budget)

    @rule(variant=st.sampled_from(["a", "b", ""]), sharing=st.integers(1, 5))
    def ask(self, variant: str, sharing: int) -> None:
        if self.ledger is None:
            return
        self.number += 1
        owner = f"{variant}/{self.number}"
        lease = self.ledger.lease(owner, variant, sharing=sharing)
        if lease is not None:
            self.open[owner] = lease
        elif not self.open:
            assert self.ledger.exhausted(variant)  # else it would wait for ever

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.ledger is None or not self.open:
            return
        owner = data.draw(st.sampled_from(sorted(self.open)))
        most = self.open.pop(owner).amount()
        spent = Amount(
            *(data.draw(st.integers(0, n)) for n in (most.steps, most.tokens, most.nanos))
        )
        known = data.draw(st.booleans())
        self.ledger.settle(owner, spent if known else None)
        variant = owner.partition("/")[0]
        so_far = self.by_variant.get(variant, Amount())
        self.by_variant[variant] = so_far + (spent if known else most)

    @invariant()
    def holds(self) -> None:
        if self.ledger is None:
            return
        for variant in ("a", "b"):
            held = [lease.amount() for o, lease in self.open.items() if o.startswith(variant + "/")]
            self.within(self.budget.per_variant, variant, held)
        self.within(self.budget.total, None, [lease.amount() for lease in self.open.values()])

    def within(self, limits: Limits, variant: str | None, held: list[Amount]) -> None:
        spent = [a for v, a in self.by_variant.items() if variant is None or v == variant]
        total = sum([*spent, *held], Amount())
        for limit, value in (
            (limits.steps, total.steps),
            (limits.tokens, total.tokens),
            (limits.money and to_nanos(limits.money), total.nanos),
        ):
            assert limit is None or value <= limit


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=40, deadline=None)


@given(
    limit=st.integers(1, 1000),
    calls=st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1)), max_size=12),
)
def test_an_allowance_pays_for_the_most_of_each_step(
    limit: int, calls: list[tuple[int, float]]
) -> None:
    allowance, spent = Allowance(Lease(owner="x", tokens=limit)), 0
    for most, share in calls:
        if allowance.fits(Amount(tokens=most)):
            cost = int(most * share)
            allowance = allowance.after(Amount(tokens=cost))
            spent += cost
        else:
            assert spent + most > limit
    assert spent <= limit
    assert allowance.left("tokens") == limit - spent
    assert allowance.left("nanos") is None
