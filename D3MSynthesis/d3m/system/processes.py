"""Processes of this machine. Does not import torch."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading


def alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        if not handle:
            return False
        gone = ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == 0
        ctypes.windll.kernel32.CloseHandle(handle)
        return not gone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however it ended: the first thing a worker does.

    A worker waits for tasks on a pipe that its siblings hold, too: it would not notice that nobody sends any more, and
    would keep its memory, or finish what nobody wants.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
