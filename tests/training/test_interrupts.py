"""Signals within a block that must not be cut."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from ebert_core.training.interrupts import Requeue, Stops, taken_stops, uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM])
def test_a_stop_takes_effect_at_the_end_of_the_block(number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012 - the second line is the point
            signal.raise_signal(number)
            done.append("rest of the block")
        assert done == ["rest of the block"]
        assert signal.getsignal(number) is stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_an_error_in_the_block_gives_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_other_threads_may_use_it() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


ASKS = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGALRM: "--max-time is over"}


@pytest.mark.parametrize("number", ASKS)
def test_a_stop_of_the_batch_system_asks_to_be_started_again(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with taken_stops(), pytest.raises(Requeue) as caught:
        signal.raise_signal(number)
    assert caught.value.reason == ASKS[number]
    assert signal.getsignal(number) == before


def test_ctrl_c_does_not() -> None:
    with taken_stops(), pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(caught.value, Requeue)


def test_the_time_is_over() -> None:
    started = time.monotonic()
    with pytest.raises(Requeue, match="max-time"), taken_stops(0.05):
        time.sleep(20)
    assert 0.05 <= time.monotonic() - started < 5
    with taken_stops(0.05):
        pass
    time.sleep(0.1)  # the alarm is off again; SIGALRM would end the process


def test_among_ranks_stops_wait_to_be_obeyed_and_ctrl_c_is_the_strongest() -> None:
    with taken_stops() as stops:
        with stops.deferred(True):
            for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            assert stops.heard == 4
        with pytest.raises(Requeue):
            signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt):
        Stops.obey(4)
    Stops.obey(0)
