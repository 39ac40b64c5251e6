"""Requests gathered into batches: what is asked alike goes together, what fails fails alone, nothing begun is lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from deixis.serving.batches import Batches, QueueFullError, StoppedError


class Gate:
    """A model that waits to be let through, and keeps what it was asked."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.seen: list[tuple[Any, list[Any]]] = []

    def __call__(self, question: Any, items: Sequence[Any]) -> list[Any]:
        self.begun.set()
        self.open.wait(10)
        self.seen.append((question, list(items)))
        if "bad" in items:
            raise ValueError("bad")
        return [f"{question}{item}" for item in items]


def test_equal_questions_share_a_batch_and_keep_their_order() -> None:
    gate = Gate()
    batches = Batches(gate, max_batch=3, wait_s=0)
    first = batches.ask("first", 0)
    gate.begun.wait(10)
    asked = [batches.ask(question, item) for item, question in enumerate("abaaab")]
    gate.open.set()
    assert [one.result(10) for one in (first, *asked)] == ["first0", "a0", "b1", "a2", "a3", "a4", "b5"]
    assert gate.seen == [("first", [0]), ("a", [0, 2, 3]), ("b", [1, 5]), ("a", [4])]
    batches.close()


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    gate = Gate()
    batches = Batches(gate, wait_s=0.05)
    asked = [batches.ask("a", item) for item in (1, "bad", 2)]
    gate.open.set()
    assert (asked[0].result(10), asked[2].result(10)) == ("a1", "a2")
    with pytest.raises(ValueError, match="bad"):
        asked[1].result(10)
    batches.close()


def test_a_full_queue_refuses_and_what_is_given_up_is_not_answered() -> None:
    gate = Gate()
    batches = Batches(gate, wait_s=0, max_waiting=2)
    batches.ask("a", 0)
    gate.begun.wait(10)
    given_up, kept = batches.ask("a", 1), batches.ask("a", 2)
    with pytest.raises(QueueFullError) as caught:
        batches.ask("a", 3)
    assert caught.value.retry_after_s >= 1
    assert given_up.cancel()
    gate.open.set()
    assert kept.result(10) == "a2"
    assert gate.seen[1:] == [("a", [2])]
    batches.close()


def test_what_would_wait_too_long_is_refused_at_once() -> None:
    gate = Gate()
    gate.open.set()
    batches = Batches(gate, wait_s=0, patience_s=10)
    batches.ask("a", 0).result(10)
    gate.open.clear()
    gate.begun.clear()
    batches.ask("a", 1)
    gate.begun.wait(10)
    batches._item_s = 6.0  # as the latest took
    waiting = [batches.ask("a", item) for item in (2, 3)]
    with pytest.raises(QueueFullError) as caught:
        batches.ask("a", 4)
    assert caught.value.retry_after_s == 12
    unlimited = batches.ask("a", 5, limited=False)
    gate.open.set()
    assert [one.result(10) for one in (*waiting, unlimited)] == ["a2", "a3", "a5"]
    batches.close()


def test_a_function_is_called_when_its_turn_comes_and_alone() -> None:
    gate = Gate()
    batches = Batches(gate, wait_s=0)
    sizes: list[int] = []
    batches.sizes.append(sizes.append)
    first = batches.ask("a", 0)
    gate.begun.wait(10)
    called = [batches.call(lambda: len(gate.seen)) for _ in range(2)]
    last = batches.ask("a", 1)
    gate.open.set()
    assert [one.result(10) for one in (first, *called, last)] == ["a0", 1, 1, "a1"]
    assert sizes == [1, 1], "functions are no items"
    batches.close()


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    gate = Gate()
    batches = Batches(gate, wait_s=0)
    asked = [batches.ask(f"{n}", n) for n in range(3)]
    closing = threading.Thread(target=batches.close)
    closing.start()
    gate.open.set()
    closing.join(10)
    assert [one.result(0) for one in asked] == ["00", "11", "22"]
    with pytest.raises(StoppedError):
        batches.ask("a", 1)
