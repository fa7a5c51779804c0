"""Work in a second thread: all of it, in order, and no error lost."""

from __future__ import annotations

import threading
import time

import pytest

from ebert_core.inference.behind import Behind


def test_everything_is_worked_on_in_order_in_another_thread() -> None:
    done, threads = [], set()

    def work(item: int) -> None:
        done.append(item)
        threads.add(threading.get_ident())

    with Behind(work) as behind:
        for item in range(100):
            behind.put(item)
    assert done == list(range(100))
    assert threads.isdisjoint({threading.get_ident()})


def test_it_goes_on_while_the_next_item_is_made() -> None:
    began = time.perf_counter()
    with Behind(lambda item: time.sleep(0.05)) as behind:
        for _ in range(8):
            time.sleep(0.05)
            behind.put(None)
    assert time.perf_counter() - began < 0.75


def test_no_more_than_was_said_waits() -> None:
    gate, made = threading.Event(), []

    def produce() -> None:
        with Behind(lambda item: gate.wait(), waiting=2) as behind:
            for item in range(10):
                behind.put(item)
                made.append(item)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.1)
    assert len(made) <= 3  # one is being worked on
    gate.set()
    producer.join()
    assert len(made) == 10


def test_an_error_of_the_work_is_raised_and_later_items_are_dropped() -> None:
    done = []

    def work(item: int) -> None:
        if item == 3:
            raise OSError("full")
        done.append(item)

    def hand_over(items: range) -> None:
        with Behind(work) as behind:
            for item in items:
                behind.put(item)

    with pytest.raises(OSError, match="full"):
        hand_over(range(1_000))
    assert done == [0, 1, 2]
    with pytest.raises(OSError, match="full"):
        hand_over(range(3, 4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_put_is_done_before_an_error_leaves_the_block(error: type[BaseException]) -> None:
    done = []

    def work(item: int) -> None:
        time.sleep(0.05)
        done.append(item)

    def hand_over() -> None:
        with Behind(work) as behind:
            behind.put(0)
            behind.put(1)
            raise error

    with pytest.raises(error):
        hand_over()
    assert done == [0, 1]
