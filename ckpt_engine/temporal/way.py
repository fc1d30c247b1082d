"""The way to a seed: which of the steps before it the code that runs again has asked for.

A step is known by what it is - line, type, arguments, and the how-manieth of its kind - and not by
its turn: who is first among coroutines side by side may be decided anew. Mostly it is not, since
answers are given in the order in which the steps had ended. A step that is not known waits until
all of the others were asked for: then it lies behind the seed. Where nothing else can happen before
that, it is one that had failed, or the code leads elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from temporalio import workflow

if TYPE_CHECKING:
    from .headers import Prefix
    from .replay_clock import ReplayClock

__all__ = ["StepOnWay", "Way", "packed_keys", "step_key", "way_to"]

_WIDTH = 8  # characters of a key; 48 bits, so that a long way stays small in the header
_NONE = "." * _WIDTH
_SETTLE = 0.5  # seconds without any change after which nothing more is expected


def step_key(line: str, fingerprint: str, *, call: bool) -> str:
    """Return what a step, or the call of a sub-workflow, is known by."""
    text = f"{'call' if call else 'step'} {fingerprint} {line}"
    return base64.b64encode(blake2b(text.encode(), digest_size=_WIDTH * 3 // 4).digest()).decode()


def packed_keys(keys: Mapping[int, str], start: int) -> str:
    """Return the keys of steps by number, from the one after ``start``, as they travel."""
    last = max(keys, default=start)
    return "".join(keys.get(number, _NONE) for number in range(start + 1, last + 1))


def _unpacked(keys: str, start: int) -> dict[str, deque[int]]:
    numbers: dict[str, deque[int]] = {}
    for at in range(0, len(keys), _WIDTH):
        key = keys[at : at + _WIDTH]
        if key != _NONE:
            numbers.setdefault(key, deque()).append(start + 1 + at // _WIDTH)
    return numbers


class Way:
    """What is left of the way to a seed.

    Args:
        prefix: The steps before the seed.
        busy: Whether something that is not answered from the store is under way.

    Attributes:
        upto: Number of the newest step that was asked for.
        answering: How many wait for their answer.
        lost: Number of the step that the code no longer leads to, once that is certain.
        clock: What holds the timers, from when the code begins.
    """

    def __init__(self, prefix: Prefix, busy: Callable[[], bool]) -> None:
        self.upto = prefix.start
        self.answering = 0
        self.lost: int | None = None
        self.clock: ReplayClock | None = None
        self._prefix = prefix
        self._busy = busy
        self._known = _unpacked(prefix.keys, prefix.start)
        self._open = {number for numbers in self._known.values() for number in numbers}
        self._gaps = sorted(prefix.gaps)
        self._waiting: list[asyncio.Future[None]] = []
        self._referee: asyncio.Task[None] | None = None
        self._asked = 0
        self._rank = {number: at for at, number in enumerate(prefix.order)}
        self._answered: dict[int, asyncio.Future[None]] = {}
        self._giver: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def left(self) -> bool:
        """Whether there are steps that were not asked for."""
        return bool(self._open)

    def find(self, key: str, line: str, place: int) -> int | None:
        """Return the number under which the step that is asked for is stored, if it is.

        After the way was lost, that of the step that should have been asked for.
        """
        self._asked += 1
        numbers = self._known.get(key)
        if not numbers:
            if self._is_gap(line, place):
                self._pass_gap(self._prefix.lines[line], place)
            return self.lost
        number = numbers.popleft()
        self._open.discard(number)
        self.upto = max(self.upto, number)
        if not self._open:
            self._release()
        return number

    def passed(self, number: int) -> None:
        """Note that the line goes on from this number: that of a sub-workflow's end."""
        self.upto = max(self.upto, number)

    def must_wait(self, key: str, line: str, place: int) -> bool:
        """Say whether it cannot be known yet what the step that is asked for is."""
        if not self._open or self.lost is not None or self._known.get(key):
            return False
        numbers = self._prefix.lines.get(line)
        done = numbers is not None and self._open.isdisjoint(numbers.values())
        return not done and not self._is_gap(line, place)

    def _is_gap(self, line: str, place: int) -> bool:
        """Say whether it has to be a step of a line that had failed, by its place."""
        numbers = self._prefix.lines.get(line)
        return numbers is not None and place not in numbers and place < max(numbers)

    def _pass_gap(self, numbers: Mapping[int, int], place: int) -> None:
        before = max((n for p, n in numbers.items() if p < place), default=self._prefix.start)
        after = min(n for p, n in numbers.items() if p > place)
        its = [gap for gap in self._gaps if before < gap < after]
        if its:
            self._gaps.remove(its[0])

    @property
    def in_order(self) -> bool:
        """Whether the order of the answers has to be seen to: steps were side by side."""
        return bool(self._rank)

    async def turn(self, number: int) -> None:
        """Return when the answer of this step is the next one to be given."""
        if number not in self._rank:
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered[number] = given
        if self._giver is None or self._giver.done():
            self._giver = asyncio.create_task(self._give())
        await given

    async def _give(self) -> None:
        # When all that was asked for is answered, the one that was done first is what the code
        # had heard of next.
        while self._answered:
            await workflow.wait_condition(lambda: not self.answering)
            given = self._answered.pop(min(self._answered, key=self._rank.__getitem__))
            if not given.done():
                given.set_result(None)

    @property
    def _moves(self) -> bool:
        """Whether the code has not begun yet, or has not been given all that it asked for."""
        return self.clock is None or self.answering > 0 or bool(self._answered)

    async def wait(self) -> None:
        """Return when it is known what the step that waits is."""
        self._asked += 1
        if not self._open or self.lost is not None:
            return  # others were asked for since it was seen that this has to wait
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        if self._referee is None or self._referee.done():
            self._referee = asyncio.create_task(self._decide())
        await admitted

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it is done; an event loop alone does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self) -> None:
        for admitted in self._waiting:
            if not admitted.done():
                admitted.set_result(None)
        self._waiting.clear()

    @property
    def _held(self) -> bool:
        return any(not admitted.done() for admitted in self._waiting)

    async def _decide(self) -> None:
        """Let steps that wait begin where nothing else can happen before them."""
        while self._held:
            await workflow.wait_condition(lambda: not self._moves or not self._held)
            if self._next_gap() and self._held:
                self._gaps.pop(0)
                self._release()
            elif await self._nothing_moves(lambda: not self._held or self._next_gap(), self._busy):
                self.lost = min(self._open)
                self._release()

    def _next_gap(self) -> bool:
        """Say whether a step that had failed may be what the next known one comes after."""
        return bool(self._gaps and self._open) and self._gaps[0] < min(self._open)

    async def missing(self) -> int | None:
        """When the code has ended: return the number of a step that it has not asked for, if any.

        What it left running in the background may still do so.
        """
        if self.left and await self._nothing_moves(lambda: not self.left, lambda: False):
            return min(self._open)
        return None

    async def _nothing_moves(self, over: Callable[[], bool], busy: Callable[[], bool]) -> bool:
        """Return ``True`` when nothing more can happen by itself; ``False`` once ``over()``."""

        def quiet() -> bool:
            return not (self._moves or busy() or (self.clock and self.clock.holds))

        while True:
            await workflow.wait_condition(lambda: over() or quiet())
            asked = self._asked
            if self.clock is not None and not over():
                await self.clock.really(_SETTLE)
            if over():
                return False
            if quiet() and asked == self._asked:
                return True


class _InTurn(Way):
    """The way to a seed that was made before steps had keys: they are known by their turn."""

    def __init__(self, prefix: Prefix, busy: Callable[[], bool]) -> None:
        super().__init__(prefix, busy)
        turns = range(prefix.start + 1, prefix.upto + 1)
        self._turns = deque(number for number in turns if number not in prefix.skips)
        self._open = {number for number in self._turns if number not in prefix.gaps}
        self._open.update(*(numbers.values() for numbers in prefix.lines.values()))

    def find(self, key: str, line: str, place: int) -> int | None:
        if line and self._prefix.lines:
            number = self._prefix.lines.get(line, {}).get(place)
        else:
            number = self._turns.popleft() if self._turns else None
        if number not in self._open:
            return None
        self._open.discard(number)
        self.upto = max(self.upto, number)
        return number

    def passed(self, number: int) -> None:
        super().passed(number)
        while self._turns and self._turns[0] <= number:
            self._turns.popleft()

    def must_wait(self, key: str, line: str, place: int) -> bool:
        return False

    async def missing(self) -> int | None:
        return None


def way_to(prefix: Prefix, busy: Callable[[], bool]) -> Way:
    """Return the way along these steps.

    Running workflows go on to find them as they did when they began, so that they replay.
    """
    if prefix.keys or prefix.upto <= prefix.start:
        return Way(prefix, busy)
    return _InTurn(prefix, busy)


class StepOnWay(workflow.ActivityHandle[Any]):
    """The handle of an activity on the way to a seed.

    Args:
        way: The way.
        schedule: Schedules it, and returns its number where it is answered from the store.
        waits: Whether it has to wait until it is known what it is.
    """

    def __init__(
        self,
        way: Way,
        schedule: Callable[[], tuple[workflow.ActivityHandle[Any], int | None]],
        *,
        waits: bool,
    ) -> None:
        self._way = way
        self._inner: workflow.ActivityHandle[Any] | None = None
        self._number: int | None = None
        if not waits:
            self._inner, self._number = schedule()
        super().__init__(self._run(schedule))
        way.keep(self)

    async def _run(
        self, schedule: Callable[[], tuple[workflow.ActivityHandle[Any], int | None]]
    ) -> Any:
        if self._inner is None:
            await self._way.wait()
            self._inner, self._number = schedule()
        result = await self._inner
        if self._number is not None:
            await self._way.turn(self._number)
        return result

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the activity, or give up waiting for its turn."""
        if self._inner is not None and not self._inner.done():
            return self._inner.cancel(msg)
        return super().cancel(msg)
