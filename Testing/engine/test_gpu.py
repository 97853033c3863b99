"""A real graphics card: the CPU's picture, and memory that runs out; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from d3m import metrics
from d3m.diffusion.networks.slice import slice_memory_mb
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.models.store import find_model, find_sample
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import Case

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")


@pytest.fixture(scope="module")
def sample() -> Case:
    """The sample case, read."""
    scans = find_sample()
    return read_case(scans.t1, scans.t2, scans.flair)


@pytest.fixture
def limit_memory() -> Iterator[Callable[[float], None]]:
    """Takes the MiB that this process may have on the card beyond what it has."""

    def limit(mb: float) -> None:
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + mb * 2**20
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def synthesis(device: str) -> Synthesis:
    """The default model in its quickest quality."""
    return Synthesis(load_model(find_model(None)), SynthesisOptions(device=device, quality="preview"))


def test_default_model_makes_the_cpus_picture(sample: Case) -> None:
    """The automatic choice is the card; its picture, mask and field are the CPU's but for rounding."""
    ours, theirs = synthesis("auto").run(sample), synthesis("cpu").run(sample)
    assert ours.computation.device == "cuda:0"
    assert not [notice for notice in ours.notices if notice.code.startswith("device")]
    spread = float(np.ptp(theirs.cemri[sample.brain]))
    assert float(np.abs(ours.cemri - theirs.cemri)[sample.brain].mean()) < 0.005 * spread
    assert metrics.dice(ours.enhancement_mask, theirs.enhancement_mask) > 0.97
    assert float(np.abs(ours.displacement - theirs.displacement).mean()) < 0.02


def test_batches_that_do_not_fit_are_halved(
    sample: Case, limit_memory: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for some four slices and 64 asked for at once, the card goes on alone and the picture is the same."""
    expected, limited = synthesis("cuda").run(sample), synthesis("cuda")
    pixels = int(np.prod(limited.prepare(sample).slices.shape[2:]))
    monkeypatch.setattr(Synthesis, "_batch", lambda *_: 64)
    limit_memory(4 * slice_memory_mb(limited.model.card.recipe.network, pixels) + 64)
    result = limited.run(sample)
    assert result.computation.device == "cuda:0"
    assert float(np.abs(result.cemri - expected.cemri).mean()) < 1e-3 * float(np.ptp(expected.cemri))


def test_not_even_one_slice_fits(sample: Case, limit_memory: Callable[[float], None]) -> None:
    """Chosen by name, the card is refused with a sentence about memory; `auto` continues on the CPU and says so."""
    named, automatic = synthesis("cuda"), synthesis("auto")
    limit_memory(1)
    with pytest.raises(D3MError, match="memory of cuda:0"):
        named.run(sample)
    result = automatic.run(sample)
    assert result.computation.device == "cpu"
    assert "device-memory" in {notice.code for notice in result.notices}
