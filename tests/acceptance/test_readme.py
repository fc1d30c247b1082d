"""Page one, word for word, in a folder of one's own, with the package as pip installs it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from ckpt_engine import create_checkpoint_engine
from tests.cli.command import Ckpt, environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SOURCES = ("ckpt_engine", "ckpt_agent", "activities", "workflows", "worker.py", "pyproject.toml")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package out of a built wheel; its dependencies are this environment's."""
    source, wheels, target = (tmp_path_factory.mktemp(n) for n in ("source", "wheels", "target"))
    for name in (*SOURCES, "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, symlinks=True, ignore=lambda *_: {"__pycache__"}
            )
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True
    )
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "workflows").mkdir(parents=True)
    (folder / "workflows" / "__init__.py").write_text('"""Mine."""\n')
    code = section("Your own agent").split("```python\n")[1].split("```")[0]
    (folder / "mymodule.py").write_text(code)
    return folder


@pytest.fixture
def openai(httpserver: HTTPServer) -> list[dict[str, Any]]:
    """A model that calls the tool and then answers with what it returned."""
    asked: list[dict[str, Any]] = []

    def answer(request: Request) -> Response:
        body = json.loads(request.get_data())
        asked.append(body)
        last = body["input"][-1]
        item: dict[str, Any] = {
            "type": "function_call",
            "id": "f1",
            "call_id": f"call-{len(asked)}",
            "name": "word_count",
            "arguments": json.dumps({"text": "to be or not to be"}),
            "status": "completed",
        }
        if last.get("type") == "function_call_output":
            text = f"{last['output']} words, says {body['model']}"
            content = [{"type": "output_text", "text": text, "annotations": []}]
            item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed"}
            item["content"] = content
        reply = {
            "id": f"r{len(asked)}",
            "object": "response",
            "created_at": 1_700_000_000,
            "model": body["model"],
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        return Response(json.dumps(reply), content_type="application/json")

    httpserver.expect_request("/v1/responses", method="POST").respond_with_handler(answer)
    return asked


def test_ones_own_agent_as_page_one_says(
    installed: Path,
    own_folder: Path,
    tmp_path: Path,
    openai: list[dict[str, Any]],
    httpserver: HTTPServer,
) -> None:
    env = environment(
        tmp_path / "home",
        PYTHONPATH=str(installed),
        OPENAI_API_KEY="sk-test",
        OPENAI_BASE_URL=httpserver.url_for("/v1"),
    )
    ckpt = Ckpt(env, cwd=own_folder, command=str(installed / "bin" / "ckpt"))
    block = section("Your own agent").split("```\n")[2]
    up, *commands = [
        shlex.split(line, comments=True)[1:]
        for line in block.splitlines()
        if line.startswith("ckpt")
    ]
    assert [up[0], *(c[0] for c in commands)] == ["up", "run", "tree", "rewind", "branch"]
    where = [sys.executable, "-c", "import ckpt_engine, ckpt_agent.worker as w; print(w.__file__)"]
    found = subprocess.run(where, env=env, cwd=own_folder, capture_output=True, text=True).stdout
    assert found.strip() == str(installed / "ckpt_agent" / "worker.py"), "not the checkout's"
    with ckpt.running(*up):
        said = {args[0]: ckpt(*args) for args in commands}
        session = said["run"].split()[1]
        assert "6 words, says gpt-5.6-sol" in said["run"]
        assert f"main · workflow {session} · completed" in said["tree"]
        assert "6 words, says gpt-5.6-sol" in ckpt("log", session, "--follow")
        branch = ckpt.json("tree", session)["threads"][2]["workflow"]["workflow_id"]
        assert "6 words, says gpt-5.6-luna" in ckpt("log", branch, "--follow")
        tree = ckpt("tree")
    assert re.search(r"● +3 \w+ manual +rewind +adds “Count again, slowly.”", tree)
    assert "★ rewind-1" in tree
    assert "◆ other" in tree
    assert [tool["name"] for tool in openai[0]["tools"]] == ["word_count"]
    assert openai[0]["instructions"] == "Use the tool."
    said_again = [i for body in openai for i in body["input"] if "slowly" in str(i.get("content"))]
    assert said_again, "the model heard what was added"


async def test_the_engine_alone_as_page_one_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = section("The engine alone").split("```python\n")[1].split("```")[0]
    indented = "".join(f"    {line}" for line in code.splitlines(keepends=True))
    scope: dict[str, Any] = {}
    exec(f"async def page_one():\n{indented}\n    return first", scope)
    first = await scope["page_one"]()
    async with await create_checkpoint_engine("sqlite:///checkpoints.db") as engine:
        assert (await engine.get_latest("chat")).id == first
        assert len((await engine.get_checkpoint_tree("chat")).nodes) == 2, "nothing was deleted"


def test_every_page_that_is_named_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
