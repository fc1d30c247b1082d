from __future__ import annotations

import json
import random
import time

import pytest
from rich.cells import cell_len

from ckpt_engine.cli.exports import to_dot, to_mermaid, tree_json
from ckpt_engine.cli.lanes import flip, lay_out
from ckpt_engine.cli.render import clean, draw_tree, short_ids
from ckpt_engine.model import CheckpointTree

from .trees import Session


def drawn(tree: CheckpointTree, width: int | None = None) -> list[str]:
    return [line.plain for line in draw_tree(tree, width=width)]


def small_session() -> CheckpointTree:
    session = Session()
    start = session.step("main", node="begin", summary="which year?")
    ask = session.step("main", start, summary="asks for 2 tools")
    tools = [session.step("main", ask, node="call_tool") for _ in range(2)]
    think = session.step("main", *tools, tags=("good",))
    session.thread("cheap", think)
    session.line("cheap", think, 2)
    session.thread("again", tools[0])
    inner = session.step("again", tools[0])
    session.thread("nested", inner)
    session.step("nested", inner)
    session.step("again", inner)
    session.step("main", think, late=True)
    session.change("main", superseded_by="again")
    session.active = "again"
    session.thread("new", ask)
    return session.tree()


def test_a_session_drawn() -> None:
    assert drawn(small_session()) == [
        "       main · workflow wf-main · superseded by again",
        "●      0 0000abc llm begin        which year?",
        "●      1 0001abc llm call_model   asks for 2 tools",
        "●      2 0002abc llm ┌ call_tool",
        "●      2 0003abc llm └ call_tool",
        "├─╮    again · workflow wf-again · from 0002abc",
        "│ ●    3 0007abc llm call_model",
        "│ ├─╮  nested · workflow wf-nested · from 0007abc",
        "│ │ ●  4 0008abc llm call_model   ◆ nested",
        "│ ●    4 0009abc llm call_model   ★ again",
        "●      3 0004abc llm call_model   [good]",
        "├─╮    cheap · workflow wf-cheap · from 0004abc",
        "│ ●    4 0005abc llm call_model",
        "│ ●    5 0006abc llm call_model   ◆ cheap",
        "●      4 000aabc llm call_model   ◆ main (late)",
        "new · workflow wf-new · from 0001abc · no steps yet",
    ]


def test_branches_side_by_side_share_a_lane_and_a_rewind_at_the_head_ends_the_thread() -> None:
    session = Session()
    start = session.step("main")
    for name in ("a", "b", "c"):
        session.step(session.thread(name, start), start)
    graphs = [row.graph for row in lay_out(session.tree())]
    assert graphs == ["", "●", "├─╮", "│ ●", "├─╮", "│ ●", "╰─╮", "  ●"]


def test_joins_of_threads_close_their_lane_and_crossed_lanes_are_kept() -> None:
    session = Session()
    start = session.step("main")
    a = session.step(session.thread("a", start), start)
    b = session.step(session.thread("b", start), start)
    session.step("a", a, b)
    session.step("main", start)
    graphs = [row.graph for row in lay_out(session.tree())]
    assert graphs == ["", "●", "├─╮", "│ ●", "├─┼─╮", "│ │ ●", "│ ├─╯", "│ ●", "●"]


def test_sub_lines_of_one_thread_get_lanes_and_meet_again() -> None:
    session = Session()
    start = session.step("main")
    left = session.line("main", start, 2)
    right = session.line("main", start, 3)
    session.step("main", left[-1], right[-1])
    graphs = [row.graph for row in lay_out(session.tree())]
    assert graphs == ["", "●", "├─╮", "│ ●", "│ ●", "● │", "● │", "● │", "╰─┤", "  ●"]


def random_session(seed: int, steps: int) -> CheckpointTree:
    source = random.Random(seed)
    session = Session()
    fronts: dict[str, tuple[str, ...]] = {"main": (session.step("main"),)}
    for number in range(steps):
        thread = source.choice(list(fronts))
        chance = source.random()
        if chance < 0.1:
            origin = source.choice(session.infos).id
            fronts[session.thread(f"t{number}", origin)] = (origin,)
        elif chance < 0.3:
            parents = fronts[thread]
            fronts[thread] = tuple(
                session.step(thread, *parents, summary="字" * source.randrange(60))
                for _ in range(source.randrange(2, 6))
            )
        elif chance < 0.4:
            other = source.choice(list(fronts))
            merged = session.step(thread, *dict.fromkeys(fronts[thread] + fronts[other]))
            fronts[thread] = (merged,)
        else:
            fronts[thread] = (session.step(thread, *fronts[thread]),)
    return session.tree()


@pytest.mark.parametrize("seed", range(40))
def test_any_session_shows_every_checkpoint_once_after_its_parents(seed: int) -> None:
    tree = random_session(seed, 60)
    rows = lay_out(tree)
    shown = [row.info for row in rows if row.info is not None]
    place = {info.id: number for number, info in enumerate(shown)}
    assert sorted(place) == sorted(node.info.id for node in tree.nodes)
    assert len(shown) == len(tree.nodes)
    assert all(place[edge.parent] < place[edge.child] for edge in tree.edges)
    assert all(row.graph[2 * row.column] == "●" for row in rows if row.info)
    starts = [row.starts for row in rows if row.starts]
    assert sorted(starts) == sorted({info.thread_id for info in shown})


@pytest.mark.parametrize("width", [20, 60, 100])
def test_lines_keep_to_the_width_with_wide_characters(width: int) -> None:
    lines = drawn(random_session(3, 80), width)
    assert max(cell_len(line) for line in lines) <= width
    assert any(line.endswith("…") for line in lines)


def test_newest_first_is_the_same_picture_turned_over() -> None:
    rows = lay_out(small_session())
    assert flip(flip(rows)) == rows
    assert flip(rows)[0].info == rows[-1].info
    assert [r.graph for r in flip(rows)][-6] == "├─╯"


def test_five_threads_of_200_steps_are_drawn_at_once() -> None:
    session = Session()
    trunk = session.line("main", session.step("main"), 199)
    for number in range(4):
        origin = trunk[number * 40]
        session.line(session.thread(f"branch-{number}", origin), origin, 200)
    began = time.monotonic()
    lines = drawn(session.tree(), 100)
    assert time.monotonic() - began < 2
    assert len(lines) == 1000 + 5
    assert {line.index("●") for line in lines if "●" in line} == {0, 2}


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert clean("a\nb\x1b[31m\u202e\x07c\ud800") == "a b[31mc"
    session = Session()
    session.step("main", summary="\x1b]0;title\x07 done\nnext", node="x\ry")
    text = "\n".join(drawn(session.tree()))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "done next" in text


def test_short_ids_are_as_long_as_they_must_be() -> None:
    alike, other = "a" * 10 + "1" * 22, "a" * 10 + "2" * 22
    assert short_ids([alike, other, "b" * 32]) == {
        alike: "a" * 10 + "1",
        other: "a" * 10 + "2",
        "b" * 32: "b" * 11,
    }
    assert short_ids(["c" * 32]) == {"c" * 32: "ccccccc"}


def test_exports_name_every_thread_checkpoint_and_edge() -> None:
    tree = small_session()
    mermaid, dot, data = to_mermaid(tree), to_dot(tree), json.loads(json.dumps(tree_json(tree)))
    for node in tree.nodes:
        assert mermaid.count(f"    c{node.info.id}[") == 1
        assert dot.count(f'    "{node.info.id}" [label=') == 1
    assert mermaid.count(". fork .") == dot.count("label=fork") == 3
    assert mermaid.count("-- join --") == dot.count("label=join") == 1
    assert [t["branch"] for t in data["threads"]] == ["main", "cheap", "again", "nested", "new"]
    assert data["threads"][0]["workflow"]["workflow_id"] == "wf-main"
    assert [c["step"] for c in data["checkpoints"]] == [n.info.step for n in tree.nodes]
    assert len(data["edges"]) == len(tree.edges)


def test_quotes_and_brackets_in_names_do_not_break_the_exports() -> None:
    session = Session('ma"in]')
    session.step('ma"in]', node='say "hi" \\ <b>')
    mermaid, dot = to_mermaid(session.tree()), to_dot(session.tree())
    assert '["ma#quot;in] · workflow wf-ma#quot;in]"]' in mermaid
    assert '"0 say #quot;hi#quot; \\ #lt;b>' in mermaid
    assert 'label="0 say \\"hi\\" \\\\ <b> ' in dot
