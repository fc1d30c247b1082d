"""Runs the installed ``ckpt`` as people do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CKPT = str(Path(sys.executable).parent / "ckpt")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's own settings, and a home of the test's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CKPT_", "TEMPORAL_"))}
    named = {k: v for k, v in os.environ.items() if k in ("CKPT_TEMPORAL_CLI", "CKPT_CACHE")}
    return {**kept, **named, "CKPT_HOME": str(home), "NO_COLOR": "1", **more}


@dataclass
class Ckpt:
    """The command with one environment."""

    env: Mapping[str, str]
    cwd: Path | None = None
    command: str = CKPT

    def __call__(self, *args: str, code: int = 0, timeout: float = 60, out: bool = False) -> str:
        """Run it, check the exit code, and return stdout (or, of a failure, stderr or ``out``)."""
        done = subprocess.run(
            [self.command, *args],
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if code and not out else done.stdout

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code, out=True))

    @contextmanager
    def running(self, *args: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        """Run a command that stays, until the block is left; yields it and what it says ready."""
        process = subprocess.Popen(
            [self.command, *args, "--json"],
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, _document(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def _document(process: subprocess.Popen[str]) -> Any:
    """Read the JSON document with which a command says that it is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.rstrip() == "}":
            return json.loads(text)
    raise AssertionError(f"it ended: {text}{process.stderr.read()}")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def wait_until_gone(pid: int, seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < limit, f"process {pid} is still there"
        time.sleep(0.05)
