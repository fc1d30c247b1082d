"""Imports go one way: read from the source, for every module, wherever in it they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = {
    f"ckpt_engine.{name}"
    for name in (
        "checks",
        "codec",
        "delta",
        "graph",
        "keys",
        "merge",
        "observe",
        "retention_plan",
        "retention_words",
        "retention",
        "summaries",
        "triggers",
    )
}
BASE = {"ckpt_engine.errors", "ckpt_engine.model", "ckpt_engine.reports"}
IN_WORKFLOWS = {
    f"ckpt_engine.temporal.{name}"
    for name in (
        "branching",
        "children",
        "contract",
        "headers",
        "replay_clock",
        "rewindable",
        "session",
        "way",
    )
}
EXPERIMENTS = {
    f"ckpt_engine.experiments.{name}" for name in ("budget", "report", "spec")
}  # plain values, for workflows as well
AROUND_WORKFLOWS = {
    f"ckpt_engine.temporal.{name}"
    for name in (
        "beginning",
        "calls",
        "policy",
        "search_attributes",
        "stand_in",
        "supervisor",
        "workflow_side",
    )
}
BACKENDS = {"aiosqlite", "alembic", "psycopg", "sqlalchemy", "sqlite3"}


@dataclass(frozen=True)
class Import:
    """One import: who, what, on which line, and whether only for type checkers."""

    module: str
    target: str
    line: int
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    found = {}
    for package in ("ckpt_engine", "activities", "workflows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[0] != "ckpt_engine":
                parts = ("ckpt_agent", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found["ckpt_agent.worker"] = ROOT / "worker.py"
    return found


MODULES = modules()


def imports_of(module: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(), str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = list(from_names(node, package))
        else:
            continue
        for name in names:
            yield Import(module, name, node.lineno, node in typing_only)


def from_names(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """Name the module behind each ``from … import …``, also where that is a submodule."""
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
        base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in MODULES else base


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]


def within(module: str, *packages: str) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


def ours(target: str) -> bool:
    return within(target, "ckpt_engine", "ckpt_agent", "activities", "workflows", "worker")


def broken(who: set[str] | str, allowed: set[str], *, types_too: bool = False) -> list[str]:
    """List the imports of our own modules, by ``who``, that are not ``allowed``."""
    chosen = {who} if isinstance(who, str) else who
    return [
        str(found)
        for found in IMPORTS
        if within(found.module, *chosen)
        and ours(found.target)
        and (types_too or not found.for_types)
        and not within(found.target, *allowed, *chosen)
    ]


CORE = {
    name
    for name in MODULES
    if within(name, "ckpt_engine")
    and not within(
        name,
        *("ckpt_engine.temporal", "ckpt_engine.cli", "ckpt_engine.contrib"),
    )
}


def test_the_reading_of_imports_is_not_blind() -> None:
    seen = {(found.module, found.target) for found in IMPORTS}
    assert ("ckpt_engine.errors", "typing") in seen
    assert ("ckpt_engine.model", "ckpt_engine.errors") in seen
    assert ("ckpt_engine.temporal.sessions", "ckpt_engine.errors") in seen
    assert ("ckpt_agent.worker", "ckpt_agent.workflows.agent") in seen
    assert len(MODULES) > 40


def test_errors_and_values_import_nothing_else_of_ours() -> None:
    assert broken("ckpt_engine.errors", set()) == []
    assert broken("ckpt_engine.reports", set()) == []
    assert broken("ckpt_engine.model", {"ckpt_engine.errors"}) == []


def test_the_configuration_knows_values_and_policies() -> None:
    known = {"ckpt_engine.checks", "ckpt_engine.retention", "ckpt_engine.triggers"}
    assert broken("ckpt_engine.config", BASE | known) == []


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_know_only_values_and_each_other(module: str) -> None:
    assert broken(module, BASE | PURE) == []


def test_the_store_knows_only_the_pure_modules() -> None:
    assert broken("ckpt_engine.store", BASE | PURE) == []
    assert broken("ckpt_engine.stores", BASE | PURE | {"ckpt_engine.store"}) == []


def test_the_engine_chooses_no_backend() -> None:
    allowed = (CORE - {"ckpt_engine", "ckpt_engine.quickstart"}) - {
        name for name in CORE if within(name, "ckpt_engine.stores", "ckpt_engine.testing")
    }
    for module in ("ckpt_engine.engine", "ckpt_engine.ops", "ckpt_engine.tree"):
        wrong = [
            str(found)
            for found in IMPORTS
            if within(found.module, module)
            and ours(found.target)
            and not found.for_types
            and found.target not in allowed
        ]
        assert wrong == []


def test_the_core_never_imports_temporal() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.module in CORE
        and within(found.target, "temporalio", "ckpt_engine.temporal", "ckpt_engine.cli")
    ]
    assert wrong == []


def test_the_core_imports_no_application() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.module, "ckpt_engine")
        and not within(found.module, "ckpt_engine.cli")
        and within(found.target, "ckpt_agent", "activities", "workflows", "worker")
    ]
    assert wrong == []


def test_only_backends_know_a_database() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.target, *BACKENDS)
        and not within(found.module, "ckpt_engine.stores", "ckpt_agent.activities.analyst")
        and found.module != "ckpt_engine.testing.postgres"
    ]
    assert wrong == []


def test_only_quickstart_plugin_and_command_line_choose_a_backend() -> None:
    choosing = ("ckpt_engine.quickstart", "ckpt_engine.stores", "ckpt_engine.testing")
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.target, "ckpt_engine.stores") and not within(found.module, *choosing)
    ]
    assert wrong == []


def test_the_integration_uses_the_cores_public_names() -> None:
    public = BASE | {"ckpt_engine.temporal"}
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.module, "ckpt_engine.temporal")
        and ours(found.target)
        and found.target != "ckpt_engine"
        and not within(found.target, *public)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(IN_WORKFLOWS))
def test_what_applications_import_into_workflows_knows_only_values(module: str) -> None:
    assert broken(module, BASE | IN_WORKFLOWS) == []


@pytest.mark.parametrize("module", sorted(IN_WORKFLOWS | AROUND_WORKFLOWS))
def test_what_runs_in_workflows_does_no_io(module: str) -> None:
    assert broken(module, BASE | IN_WORKFLOWS | AROUND_WORKFLOWS) == []
    outside = ("temporalio.client", "temporalio.activity", "pathlib", "socket", *BACKENDS)
    assert [str(f) for f in IMPORTS if f.module == module and within(f.target, *outside)] == []


def test_workflows_use_values_and_the_workflow_side_only() -> None:
    allowed = BASE | IN_WORKFLOWS | EXPERIMENTS | {"ckpt_agent.workflows"}
    assert broken("ckpt_agent.workflows", allowed) == []
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.module, "ckpt_agent.workflows")
        and within(found.target, *BACKENDS, "os", "socket", "pathlib", "temporalio.client")
    ]
    assert wrong == []


def test_activities_use_the_package_and_the_messages_of_workflows() -> None:
    allowed = {
        "ckpt_engine",
        "ckpt_agent.activities",
        "ckpt_agent.workflows.experiment_messages",
        "ckpt_agent.workflows.overrides",
        "ckpt_agent.workflows.messages",
    }
    assert broken("ckpt_agent.activities", allowed) == []


def test_experiments_are_plain_values_and_functions() -> None:
    assert broken("ckpt_engine.experiments", BASE) == []
    for module in EXPERIMENTS:
        assert broken(module, EXPERIMENTS) == []
    heavy = ("temporalio", "scipy", "numpy", "yaml", "jinja2", "pathlib", "socket", *BACKENDS)
    wrong = [str(f) for f in IMPORTS if f.module in EXPERIMENTS and within(f.target, *heavy)]
    assert wrong == []


def test_application_folders_are_never_imported_by_their_bare_names() -> None:
    wrong = [
        str(found) for found in IMPORTS if within(found.target, "activities", "workflows", "worker")
    ]
    assert wrong == []


def public_names(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


OF_OTHERS = (
    BASE | {"ckpt_engine", "ckpt_engine.temporal", "ckpt_engine.temporal.encryption"} | IN_WORKFLOWS
)


@pytest.mark.parametrize("folder", ["activities", "workflows", "worker.py", "examples"])
def test_the_shipped_agent_uses_nothing_that_others_could_not(folder: str) -> None:
    """Only public names, of the modules that are there for applications."""
    top = ROOT / folder
    wrong, seen = [], 0
    for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not within(node.module or "", "ckpt_engine"):
                continue
            seen += 1
            assert node.module is not None
            for alias in node.names:
                home = f"{node.module}.{alias.name}"
                known = node.module in OF_OTHERS or within(
                    node.module, "ckpt_engine.contrib", "ckpt_engine.experiments"
                )
                if home not in OF_OTHERS and not (
                    known and alias.name in public_names(node.module)
                ):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {home}")
    assert wrong == []
    assert seen > 0


def test_the_integration_knows_no_agent() -> None:
    """No name of the shipped agent is treated in its own way anywhere below it."""
    words = ("AgentWorkflow", "call_model", "call_tool", "ckpt_agent")
    wrong = [
        f"{name} says {word}"
        for name, path in MODULES.items()
        if within(name, "ckpt_engine.temporal") or name in CORE
        for word in words
        if word in path.read_text()
    ]
    assert wrong == []
