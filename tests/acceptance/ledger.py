"""What happened, in which order, in which process: one file that every process appends to."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


class Ledger:
    """Lines of JSON; each is written in one go, so that a killed process leaves whole ones."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._path = path
        self._lines: dict[str, list[dict[str, Any]]] = {}
        self._read_to = 0

    def note(self, what: str, **facts: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "at_ms": time.time() * 1000, **facts}
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def read(self, what: str, **facts: Any) -> list[dict[str, Any]]:
        return self._since(what, 0, facts)

    def _since(self, what: str, start: int, facts: dict[str, Any]) -> list[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        self._read_to += len(new)
        for line in map(json.loads, new.splitlines()):
            self._lines.setdefault(line["what"], []).append(line)
        lines = self._lines.setdefault(what, [])[start:]
        return [line for line in lines if all(line.get(key) == facts[key] for key in facts)]

    async def until(self, what: str, *, times: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Wait until it has happened."""
        found: list[dict[str, Any]] = []
        seen = 0

        def happened() -> bool:
            nonlocal seen
            found.extend(self._since(what, seen, facts))
            seen = len(self._lines[what])
            return len(found) >= times

        await until(happened)
        return found


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0.02)


async def until_async(happened: Callable[[], Awaitable[bool]]) -> None:
    while not await happened():
        await asyncio.sleep(0.05)
