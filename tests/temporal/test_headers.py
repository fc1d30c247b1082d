"""What a step's activity is sent with can be read by this version and others, and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest
from temporalio.api.common.v1 import Payload

from ckpt_engine.temporal.headers import (
    Caller,
    Origin,
    Reset,
    SessionHeader,
    StepHeader,
    header_payload,
    read_header,
    read_step_header,
)

ORIGIN = Origin(
    id="a" * 32,
    run_id="run",
    resume="replay",
    caller=Caller(thread="t", workflow_id="w", run_id="r", workflow_type="W", task_queue="q"),
)
FULL = StepHeader(
    session="s",
    thread="t",
    id="b" * 32,
    step=7,
    parents=["c" * 32, "d" * 32],
    fingerprint="f" * 16,
    first=False,
    record=False,
    replay=True,
    base=3,
    line=("/researcher#1", 2),
    sub="e" * 32,
    origin=ORIGIN,
    reset=Reset(of="s", parents=["c" * 32]),
)
PLAIN = StepHeader(session="s", thread="t", id="b" * 32, step=1, parents=["c" * 32])


@pytest.mark.parametrize("header", [FULL, PLAIN])
def test_a_step_header_comes_back_as_it_was_sent(header: StepHeader) -> None:
    assert read_step_header(header_payload(header)) == header


def test_a_step_header_says_only_what_is_unusual() -> None:
    fields = json.loads(header_payload(PLAIN).data)
    assert set(fields) == {"session", "thread", "id", "step", "parents"}
    payload = header_payload(FULL)
    assert dict(payload.metadata) == {"encoding": b"json/plain"}
    assert json.loads(payload.data)["origin"] == ORIGIN.model_dump(exclude_defaults=True)


def test_what_another_version_says_besides_is_passed_over() -> None:
    fields = {**json.loads(header_payload(FULL).data), "v": 2, "later": {"any": "thing"}}
    read = read_step_header(Payload(data=json.dumps(fields).encode()))
    assert read == msgspec.structs.replace(FULL, v=2)


@pytest.mark.parametrize("data", [b"", b"\xff\x00", b"not json", b"[1, 2]", b'"text"', b"null"])
def test_what_is_no_header_of_ours_is_none(data: bytes) -> None:
    assert read_step_header(Payload(data=data)) is None
    assert read_header(Payload(data=data)) is None


def test_no_header_is_none() -> None:
    assert read_step_header(None) is None


@pytest.mark.parametrize(
    "wrong", [{"step": "seven"}, {"parents": None}, {"id": 1}, {"line": ["only"]}]
)
def test_a_header_of_ours_that_cannot_be_read_is_an_error(wrong: dict[str, object]) -> None:
    fields = {**json.loads(header_payload(FULL).data), **wrong}
    with pytest.raises(msgspec.ValidationError):
        read_step_header(Payload(data=json.dumps(fields).encode()))


def test_a_workflow_s_header_travels_likewise() -> None:
    fields = read_header(header_payload(SessionHeader(carried={"step": 3})))
    assert fields == {"carried": {"step": 3}}
