"""A command that ends by an error ends with its exit status, whatever --num-workers is.

Fault: fairseq reads batches ahead in a thread that nobody stops. If the command ends by an error
while the thread is in torch's code, Python's shutdown kills it there, and the process aborts:
"terminate called without an active exception", exit status 134.

Patch: at exit the thread is told to stop, and waited for.

Other tasks: the same.

Drop it: when fairseq's BufferedIterator stops its thread.
"""

import atexit
import queue
import time
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq.data import iterators

PATIENCE = 10.0  # seconds to wait for the batch that a thread is reading
_consumers: weakref.WeakSet = weakref.WeakSet()


def _remember(original: Callable) -> Callable:
    @wraps(original)
    def _create_consumer(self: Any) -> None:
        original(self)
        _consumers.add(self._consumer)

    return _create_consumer


def stop(consumer: Any, patience: float = PATIENCE) -> None:
    """End a thread of fairseq's that reads ahead, after the batch that it is reading.

    Args:
        consumer: a BackgroundConsumer; patience: seconds to wait for it.
    """
    consumer._max_len = 0  # it stops once it has put a batch into its queue, which may be full
    deadline = time.monotonic() + patience
    while consumer.is_alive() and time.monotonic() < deadline:
        try:
            consumer._queue.get_nowait()
        except queue.Empty:
            consumer.join(0.01)


def _stop_all() -> None:
    for consumer in list(_consumers):
        stop(consumer)


def install() -> None:
    """Replace `BufferedIterator._create_consumer`, and stop the threads at exit."""
    create = _remember(iterators.BufferedIterator._create_consumer)
    iterators.BufferedIterator._create_consumer = create
    atexit.register(_stop_all)
