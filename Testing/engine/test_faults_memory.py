"""Memory that runs out and devices that fail in the middle: the same picture, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyCase
from d3m import devices
from d3m import synthesis as engine
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.synthesis import Result, Synthesis
from d3m.volumes.read import read_case
from d3m.volumes.types import Case

ERRORS: dict[str, Callable[[], BaseException]] = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "numpy": lambda: MemoryError("Unable to allocate 1.00 GiB"),
}


@pytest.fixture(scope="module")
def case(tiny_case: TinyCase) -> Case:
    """The tiny case, read."""
    return read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)


def run(model: Path, case: Case, device: str = "cpu") -> Result:
    """A short run."""
    return Synthesis(load_model(model), device, "preview").run(case)


@pytest.mark.parametrize("kind", ERRORS)
def test_smaller_batches_go_on_where_memory_ran_out(
    kind: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices that were done stay done, and the picture is bit for bit that of a run with small batches."""
    monkeypatch.setattr(engine, "CPU_BATCH", 2)
    small = run(tiny_model, case)
    monkeypatch.setattr(engine, "CPU_BATCH", 8)
    synthesis = Synthesis(load_model(tiny_model), "cpu", "preview")
    real, done, calls = synthesis.network.network.forward, 0, 0

    def limited(x: Tensor, *rest: Tensor) -> object:
        nonlocal done, calls
        calls += 1
        if len(x) > (4 if done < 8 else 2):  # less and less memory
            raise ERRORS[kind]()
        done += len(x)
        return real(x, *rest)

    monkeypatch.setattr(synthesis.network.network, "forward", limited)
    result = synthesis.run(case)
    assert done == int(synthesis.prepare(case).brain.any(axis=(1, 2)).sum())  # none twice
    assert calls > done / 4
    np.testing.assert_allclose(result.cemri, small.cemri, rtol=0, atol=1e-4 * np.ptp(small.cemri))
    np.testing.assert_allclose(result.displacement, small.displacement, atol=1e-4)


def test_one_slice_at_a_time_gives_the_same_bits(case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 8, 4 and 2 slices failed, the picture equals that of a run which began with single slices."""
    synthesis = Synthesis(load_model(tiny_model), "cpu", "preview")
    real = synthesis.network.network.forward

    def limited(x: Tensor, *rest: Tensor) -> object:
        if len(x) > 1:
            raise ERRORS["torch"]()
        return real(x, *rest)

    monkeypatch.setattr(synthesis.network.network, "forward", limited)
    result = synthesis.run(case)
    monkeypatch.setattr(engine, "CPU_BATCH", 1)
    single = run(tiny_model, case)
    np.testing.assert_array_equal(result.cemri, single.cemri)
    np.testing.assert_array_equal(result.displacement, single.displacement)


@pytest.mark.parametrize("kind", ERRORS)
def test_not_even_one_slice(kind: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says that memory ran out, the user reads memory and what to change; exit code 3."""
    synthesis = Synthesis(load_model(tiny_model), "cpu", "preview")

    def full(*_: Tensor) -> None:
        raise ERRORS[kind]()

    monkeypatch.setattr(synthesis.network.network, "forward", full)
    with pytest.raises(D3MError, match=r"memory.*smaller model") as caught:
        synthesis.run(case)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["meta", "cuda:63"])
def test_device_that_fails_at_its_first_real_work(
    name: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that looked usable: auto goes on with the CPU and says so; a device chosen by name is refused.

    "meta" takes the network and computes, but gives nothing back; "cuda:63" does not even take it.
    """
    expected = run(tiny_model, case)
    monkeypatch.setattr(engine, "choose_device", lambda request: (torch.device(name), ()))
    result = run(tiny_model, case, "auto")
    np.testing.assert_array_equal(result.cemri, expected.cemri)
    assert result.settings.device == "cpu"
    assert [notice.code for notice in result.notices][:1] == ["device-unusable"]
    assert name in result.notices[0].message
    with pytest.raises(D3MError, match=f"{name} cannot be used") as caught:
        run(tiny_model, case, name)
    assert caught.value.exit_code == 3


def test_batch_follows_the_free_memory(case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little free memory fewer slices are tried at once, by the same estimate that `d3m info` prints."""
    seen = []
    synthesis = Synthesis(load_model(tiny_model), "cpu", "preview")
    real = synthesis.network.network.forward

    def watch(x: Tensor, *rest: Tensor) -> object:
        seen.append(len(x))
        return real(x, *rest)

    monkeypatch.setattr(synthesis.network.network, "forward", watch)
    pixels = int(np.prod(synthesis.prepare(case).slices.shape[2:]))
    one = engine.slice_memory_mb(synthesis.model.card.recipe.network, pixels) * 2**20
    monkeypatch.setattr(engine, "free_memory", lambda _: int(6.5 * one))
    synthesis.run(case)
    assert max(seen) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16", "avx2"}, torch.bfloat16)],
)
def test_number_format_does_not_depend_on_the_load(
    flags: set[str], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the processor has decides, not a clock: else a busy machine would give another picture for a seed."""
    monkeypatch.setattr(devices, "_x86_flags", lambda: frozenset(flags))
    monkeypatch.setattr(devices.time, "perf_counter", lambda: pytest.fail("measured"))
    assert devices.fastest_dtype(torch.device("cpu")) == expected


def test_number_format_is_measured_where_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another processor one of the two formats is chosen."""
    monkeypatch.setattr(devices, "_x86_flags", frozenset)
    assert devices.fastest_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
