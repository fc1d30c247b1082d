"""The examples in the docstrings of every public verb run."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpt_engine
from ckpt_engine import CheckpointEngine, create_checkpoint_engine, current_scope

ROOT = Path(__file__).parents[2]
VERBS = {
    name: getattr(CheckpointEngine, name)
    for name in dir(CheckpointEngine)
    if not name.startswith("_") and callable(getattr(CheckpointEngine, name))
} | {"create_checkpoint_engine": create_checkpoint_engine, "current_scope": current_scope}


def _example(verb: Callable[..., Any]) -> str:
    found = re.search(r"^Example:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(verb)}\n", re.MULTILINE)
    assert found, f"{verb.__qualname__} has no example"
    return textwrap.dedent(found[1])


async def _run(code: str, names: dict[str, Any]) -> None:
    known = {name: getattr(ckpt_engine, name) for name in ckpt_engine.__all__} | names
    exec(
        compile(f"async def example():\n{textwrap.indent(code, '    ')}", "example", "exec"), known
    )
    await known["example"]()


@pytest.mark.parametrize("name", VERBS)
async def test_the_example_runs(name: str) -> None:
    async with await create_checkpoint_engine("memory:") as engine:
        await _run(_example(VERBS[name]), {"engine": engine})


@pytest.mark.parametrize("page", ["README.md", "docs/engine.md"])
async def test_the_examples_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    mine = [block for block in blocks if "create_checkpoint_engine(" in block]
    assert mine
    for block in mine:
        await _run(block, {})
