"""The networks in the number format that is fastest on a device; everything else stays in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d3m.diffusion.networks.slice import D3MNetwork


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """The context in which convolutions run in a number format; torch.float32 means without autocast."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


class MixedPrecision:
    """A network whose convolutions run under autocast; its outputs are float32. Satisfies `D3MNetwork`.

    Raises, when it is called:
        FloatingPointError: an output is infinite or not a number: what follows would only hide it.

    Args:
        network: Any `D3MNetwork`.
        dtype: torch.bfloat16, torch.float16, or torch.float32 for no autocast.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.stride: int = network.stride  # type: ignore[assignment]

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context that the network runs in."""
        return autocast(self.dtype, device)

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs for image and mask, (N, 1, H, W) float32."""
        with self.autocast(x_t.device):
            image, mask = self.network(x_t, m_t, condition, t)
        return self._finite(image), self._finite(mask)

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        """Displacement (N, 2, H, W) in pixels, float32."""
        network: D3MNetwork = self.network  # type: ignore[assignment]
        with self.autocast(mask.device):
            return self._finite(network.deform(mask, image, t1))

    def _finite(self, output: Tensor) -> Tensor:
        output = output.float()
        if not torch.isfinite(output).all():
            raise FloatingPointError(f"the network's output is not finite in {str(self.dtype).removeprefix('torch.')}")
        return output
