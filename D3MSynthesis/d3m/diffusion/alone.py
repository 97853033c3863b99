"""Work side by side on a CPU, each item computed as if it were alone: the same bits on two cores and on sixty-four.

The libraries below choose how to split and to add up a convolution by the number of slices and of threads that they
are given, so that both show in the last bits of the result, and a diffusion model makes more of it. Here every item (a
slice, or always the same few of them) is a call of its own by one thread; cores are used by computing several items at
the same time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import torch

from d3m.errors import is_out_of_memory

Message = int | BaseException | None
"""From a thread: steps that it has done (below zero: that were lost), an error, or None at its end."""


def each_alone(
    work: Callable[[int], Iterator[int]], items: Sequence[int], at_once: int, tell: Callable[[int], None]
) -> None:
    """Do some work for each item, several at the same time, each by one thread that has no helpers.

    An item that finds no memory is begun again when fewer run at the same time.

    Args:
        work: Called with an item; it yields after each step: as how many steps that counts.
        items: What is worked on.
        at_once: Threads.
        tell: Called in this thread with the number of steps that were done, or, below zero, lost; may raise to end
            everything: items that run end after their step.

    Raises:
        RuntimeError, MemoryError: one item alone does not fit into memory.
        Exception: the first error of another kind.
    """
    before = torch.get_num_threads()
    waiting = deque(items)
    at_once = max(1, min(at_once, len(items)))
    try:
        while waiting:
            full = _run(work, waiting, at_once, tell)
            if full is None:
                return
            if at_once == 1:
                raise full
            at_once //= 2
    finally:
        torch.set_num_threads(before)  # the threads have set it for those that begin later


def _run(
    work: Callable[[int], Iterator[int]], waiting: deque[int], at_once: int, tell: Callable[[int], None]
) -> BaseException | None:
    """Work until nothing waits, or until memory has run out in some threads and the others have done what they could.

    Returns:
        The error of a thread that found no memory; its item waits again.
    """
    messages: SimpleQueue[Message] = SimpleQueue()
    ended = threading.Event()
    modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()  # each thread has its own

    def go_on() -> None:
        torch.set_num_threads(1)
        with torch.set_grad_enabled(modes[1]), torch.inference_mode(modes[0]):
            while not ended.is_set():
                try:
                    item = waiting.popleft()
                except IndexError:
                    break
                error = _do(work, item, messages, ended)
                if error is not None:
                    waiting.appendleft(item)
                    messages.put(error)
                    break
        messages.put(None)

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(at_once)]
    full: BaseException | None = None
    try:
        for thread in threads:
            thread.start()
        running = at_once
        while running:
            message = messages.get()
            if message is None:
                running -= 1
            elif isinstance(message, int):
                tell(message)
            elif is_out_of_memory(message):
                full = message
            else:
                raise message
    finally:
        ended.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()
    return full


def _do(
    work: Callable[[int], Iterator[int]], item: int, messages: SimpleQueue[Message], ended: threading.Event
) -> BaseException | None:
    """One item; what went wrong, without its hold on everything that the network had made."""
    done = 0
    try:
        for count in work(item):
            done += count
            messages.put(count)
            if ended.is_set():
                break
    except BaseException as error:
        messages.put(-done)
        return error.with_traceback(None)
    return None
