"""A model on the device that computes it, and what happens when that device fails."""

from __future__ import annotations

import copy

import torch

from d3m.diffusion.precision import MixedPrecision
from d3m.errors import D3MError, Notice, is_out_of_memory
from d3m.models.cost import case_memory
from d3m.models.load import Model
from d3m.system import limits
from d3m.system.devices import choose_device, fastest_dtype

CPU = torch.device("cpu")


class Placed:
    """A model on its device; with "auto" the CPU takes over from a GPU that fails.

    Args:
        model: Loaded.
        request: "auto", or a device that is used or refused.

    Raises:
        D3MError: there is no such device, or too little memory.
    """

    def __init__(self, model: Model, request: str) -> None:
        self.model, self._request = model, request
        chosen, self.notices = choose_device(request)
        threads = torch.get_num_threads() if chosen.type == "cpu" else 0
        limits.check_memory(case_memory(model.card, threads), "A case")
        try:
            self._move(chosen)
        except (RuntimeError, MemoryError, AssertionError, OSError) as error:  # torch asserts that it was built for it
            self.device = chosen
            self.notices += (self.fall_back(error),)

    def _move(self, device: torch.device) -> None:
        """Compute on this device from now on.

        A GPU gets a copy of the network: what lies in a GPU that failed may never be had back.
        """
        network = self.model.network if device.type == "cpu" else copy.deepcopy(self.model.network)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.dtype = device, fastest_dtype(device)
        self.network = MixedPrecision(network.eval(), self.dtype)
        whole_brain = self.model.whole_brain
        if whole_brain is not None and device.type != "cpu":
            whole_brain = copy.deepcopy(whole_brain).to(device)
        self.whole_brain = whole_brain

    def fall_back(self, error: BaseException) -> Notice:
        """Continue on the CPU if the user left the choice; what failed is reported.

        Raises:
            D3MError: the user chose the device, or there is no other.
            BaseException: the error itself, if it is a defect of ours.
        """
        device, memory = self.device, is_out_of_memory(error)
        if device.type == "cpu" and not memory:
            raise error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if device.type == "cpu" or self._request != "auto":
            text, hint = f"The device {device} cannot be used ({reason}).", "Use --device auto or --device cpu."
            if memory:
                text = f"Not enough memory on {device} for a single slice."
                hint = "Close other programs, choose another --device, or a smaller model."
            raise D3MError(text, hint, "machine") from error
        self._move(CPU)
        if memory:
            return Notice("device-memory", "The GPU ran out of memory; the CPU was used instead.")
        return Notice("device-unusable", f"{device} cannot be used ({reason}); the CPU was used instead.")
