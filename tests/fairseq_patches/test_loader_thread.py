"""The thread that reads batches ahead ends when it is told to."""

import threading

import pytest
from fairseq.data.iterators import BufferedIterator

import difformer_plugin
from difformer_plugin.fairseq_patches import loader_thread

difformer_plugin.register()


class Batches:
    """Many batches; `slow` ones wait until they are asked for."""

    def __init__(self, slow=False):
        self.wanted, self.read = threading.Event(), 0
        if not slow:
            self.wanted.set()

    def __len__(self):
        return 10**6

    def __iter__(self):
        for i in range(len(self)):
            if i > 1:
                self.wanted.wait()
            self.read += 1
            yield i


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_thread_that_waits_for_a_place_in_the_queue_stops(size):
    batches = Batches()
    buffered = BufferedIterator(size, batches)
    assert [next(buffered), next(buffered)] == [0, 1]
    loader_thread.stop(buffered._consumer)
    assert not buffered._consumer.is_alive()
    assert batches.read <= 2 * size + 4  # what was in the queue, and no more


def test_a_thread_that_reads_for_ever_is_not_waited_for():
    batches = Batches(slow=True)
    buffered = BufferedIterator(3, batches)
    assert next(buffered) == 0
    loader_thread.stop(buffered._consumer, patience=0.05)
    batches.wanted.set()
    buffered._consumer.join(10)
    assert not buffered._consumer.is_alive()


def test_every_thread_is_stopped_at_exit():
    running = [BufferedIterator(2, Batches()) for _ in range(3)]
    for buffered in running:
        next(buffered)
    loader_thread._stop_all()
    assert not any(buffered._consumer.is_alive() for buffered in running)
