"""What training batches have in common, of slices and of volumes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar

import torch

Kind = TypeVar("Kind", bound="Tensors")


class Tensors:
    """Base of a data class whose fields are all tensors."""

    def to(self: Kind, device: torch.device) -> Kind:
        """The same on a device."""
        content: Any = self
        moved: Kind = replace(content, **{f.name: getattr(self, f.name).to(device) for f in fields(content)})
        return moved


class Source(ABC, Generic[Kind]):
    """Where batches come from: each is a function of its number alone."""

    @abstractmethod
    def draw(self, number: int) -> Kind:
        """The batch of this number, always the same."""

    def ahead(self, numbers: Iterable[int], workers: int = 2) -> Iterator[Kind]:
        """The batches of these numbers in order, drawn by threads while the caller works with earlier ones.

        Threads serve, since numpy and torch release the interpreter's lock; a batch does not depend on who draws it.
        """
        waiting: deque[Future[Kind]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for number in numbers:
                waiting.append(pool.submit(self.draw, number))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
