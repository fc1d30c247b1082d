"""Rows are decompressed from both ends: whoever does it, they come in order and whole."""

from __future__ import annotations

import os
import threading

import pytest

from ckpt_engine.codec import compress, decompress
from ckpt_engine.errors import Corrupted
from ckpt_engine.ops import ahead
from ckpt_engine.ops.ahead import contents
from ckpt_engine.store import Batch

CONTENTS = [os.urandom(30_000) * (1 + number % 3) for number in range(40)]


def rows() -> list[Batch]:
    return [Batch(n, 1, "", n, 1, *compress(content)) for n, content in enumerate(CONTENTS)]


def test_rows_come_in_order_whoever_decompresses_them() -> None:
    for _ in range(20):
        found = list(contents(rows()))
        assert [row.pk for row, _ in found] == list(range(40))
        assert [content for _, content in found] == CONTENTS


def test_the_reader_never_waits_for_a_thread_that_is_busy() -> None:
    free = threading.Event()
    busy = ahead._helper.submit(free.wait, 60)
    try:
        assert [content for _, content in contents(rows())] == CONTENTS
        assert not busy.done()
    finally:
        free.set()


@pytest.fixture
def ahead_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what gets the size of each content that the other thread decompresses."""
    sizes: list[int] = []
    reader = threading.get_ident()

    def noted(codec: int, body: bytes) -> bytes:
        content = decompress(codec, body)
        if threading.get_ident() != reader:
            sizes.append(len(content))
        return content

    monkeypatch.setattr(ahead, "decompress", noted)
    return sizes


def test_the_other_thread_takes_a_share(ahead_of_the_reader: list[int]) -> None:
    reading = contents(rows())
    next(reading)
    assert ahead._helper.submit(lambda: True).result(60)  # behind what it was given
    assert len(ahead_of_the_reader) == len(list(reading)), "nothing was left for the reader"


def test_only_so_much_is_held_ahead(
    monkeypatch: pytest.MonkeyPatch, ahead_of_the_reader: list[int]
) -> None:
    monkeypatch.setattr(ahead, "_MOST", 200_000)
    reading = contents(rows())
    found = [next(reading)]
    assert ahead._helper.submit(lambda: True).result(60)
    found += reading
    assert [content for _, content in found] == CONTENTS
    assert 200_000 <= sum(ahead_of_the_reader) < 300_000


def test_a_content_comes_without_the_body_it_was_made_of() -> None:
    assert not any(row.body for row, _ in contents(rows()))


@pytest.mark.parametrize("damaged", [0, 20, 39])
def test_a_row_that_is_damaged_is_reported_wherever_it_stands(damaged: int) -> None:
    some = rows()
    body = some[damaged].body
    some[damaged] = some[damaged]._replace(body=body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    with pytest.raises(Corrupted):
        list(contents(some))
