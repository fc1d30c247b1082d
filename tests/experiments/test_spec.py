"""Specifications: what is accepted, and that a mistake is named with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckpt_engine.experiments.reading import SpecError, read_spec

GOOD = """\
name: analyst
from: {checkpoint: 4f46f15}
variants:
  - name: plain
  - name: brief
    instructions: Answer in one sentence.
    say: Be brief.
questions:
  - name: rain
    say: How much rain?
    expected: "1232"
scorer:
  kind: contains
budget:
  total: {tokens: 1000}
"""


def test_a_good_one() -> None:
    spec = read_spec(GOOD)
    assert spec.baseline == "plain"
    brief = spec.variant("brief")
    assert brief.state_patch() == {"instructions": "Answer in one sentence."}
    assert brief.spoken() == [{"role": "user", "content": "Be brief."}]
    assert spec.digest() == read_spec(GOOD.replace("rain\n", "rain  # asked first\n")).digest()
    assert spec.digest() != read_spec(GOOD.replace("1000", "1001")).digest()


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("tokens: 1000", "tokens: many", "15:19", "budget.total.tokens: Input should be a valid"),
        ("instructions:", "instruction:", "6:5", "variants.1.instruction: there is no such key"),
        ("kind: contains", "kind: hunch", "13:3", "scorer: Input tag 'hunch' found"),
        ("name: plain", "name: brief", "4:3", "variants: two are called 'brief'"),
        ("name: analyst", "name: an analyst", "1:7", "name: String should match pattern"),
        ("name: analyst\n", "", "1:1", "name: is missing"),
        ("name: analyst", "name: analyst\nbaseline: best", "2:11", "no variant is called 'best'"),
        ("{checkpoint: 4f46f15}", "{step: 3}", "2:7", "from: step, back and tag need a session"),
        ("{checkpoint: 4f46f15}", "{}", "2:7", "from: give exactly one of checkpoint, step, back"),
        ('    expected: "1232"\n', "", "1:1", "the scorer contains needs `expected`; not in rain"),
        ("kind: contains", 'kind: regex\n  expected: "("', "8:5", ""),
        ("from:", "from", "2:1", "there is no such key"),
        ("  - name: brief", "  - name: [brief", "6:17", "not YAML: "),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, place: str, message: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if new.startswith("kind: regex"):
        text, place = text.replace('"1232"', '"(12"'), "1:1"
        message = "rain: not a regular expression"
    with pytest.raises(SpecError) as caught:
        read_spec(text, source="analyst.yaml")
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"analyst.yaml:{place}: "), first
    assert message in first


def test_the_example_in_the_docs_is_a_good_one() -> None:
    docs = Path(__file__).parents[2] / "docs" / "experiments.md"
    found = re.search(r"```yaml\n(.*?)```", docs.read_text(), re.DOTALL)
    assert found is not None
    spec = read_spec(found[1])
    assert spec.budget.total.money == 5
    assert spec.seed is not None
    assert spec.seed.session == "first"


def test_every_mistake_has_a_line() -> None:
    text = GOOD.replace("tokens: 1000", "tokens: 0").replace("say: How", "said: How")
    with pytest.raises(SpecError) as caught:
        read_spec(text)
    assert len(str(caught.value).splitlines()) == 2


def test_neither_a_list_nor_nothing_is_a_specification() -> None:
    for text in ("", "- name: x", "words"):
        with pytest.raises(SpecError, match="a mapping with name"):
            read_spec(text)


def test_too_many_trials_are_refused() -> None:
    text = GOOD.replace("  - name: brief\n", "  - name: more\n  - name: most\n  - name: brief\n")
    with pytest.raises(SpecError, match="4000 trials are too many"):
        read_spec(text + "repeats: 1000\n")
