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
        self._lines: list[dict[str, Any]] = []
        self._read_to = 0

    def note(self, what: str, **facts: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "at_ms": time.time() * 1000, **facts}
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def read(self, what: str, **facts: Any) -> list[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        self._read_to += len(new)
        self._lines += map(json.loads, new.splitlines())
        return [
            line
            for line in self._lines
            if line["what"] == what and all(line.get(key) == facts[key] for key in facts)
        ]

    async def until(self, what: str, *, times: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Wait until it has happened."""
        await until(lambda: len(self.read(what, **facts)) >= times)
        return self.read(what, **facts)


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0.02)


async def until_async(happened: Callable[[], Awaitable[bool]]) -> None:
    while not await happened():
        await asyncio.sleep(0.05)
