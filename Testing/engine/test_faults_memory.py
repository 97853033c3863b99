"""Memory that runs out and devices that fail in the middle: the same picture, or one sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyCase
from d3m import synthesis as engine
from d3m.errors import D3MError
from d3m.models import placed
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Result, Synthesis
from d3m.system import devices
from d3m.volumes.preprocess.case import read_case
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
    return Synthesis(load_model(model), SynthesisOptions(device=device, quality="preview")).run(case)


@pytest.mark.parametrize("kind", ERRORS)
def test_fewer_slices_at_once_go_on_where_memory_ran_out(
    kind: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices that were done stay done, and the picture is bit for bit that of a run with memory."""
    plenty = run(tiny_model, case)
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))
    real, lock, inside, done, refused = synthesis.on.network.network.forward, threading.Lock(), 0, 0, 0

    def limited(x: Tensor, *rest: Tensor) -> object:
        nonlocal inside, done, refused
        with lock:
            inside += 1
            crowded = inside > (2 if done < 8 else 1)  # less and less memory
            refused += crowded
        try:
            if crowded:
                raise ERRORS[kind]()
            time.sleep(0.005)
            made = real(x, *rest)
            with lock:
                done += len(x)
            return made
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(synthesis.on.network.network, "forward", limited)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        result = synthesis.run(case)
    finally:
        torch.set_num_threads(threads)
    assert refused
    slices = int(synthesis.prepare(case).brain.any(axis=(1, 2)).sum())
    assert done == slices + slices % 2  # in pairs, none twice
    np.testing.assert_array_equal(result.cemri, plenty.cemri)
    np.testing.assert_array_equal(result.displacement, plenty.displacement)


@pytest.mark.parametrize("kind", ERRORS)
def test_not_even_one_slice(kind: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says that memory ran out, the user reads memory and what to change; exit code 3."""
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))

    def full(*_: Tensor) -> None:
        raise ERRORS[kind]()

    monkeypatch.setattr(synthesis.on.network.network, "forward", full)
    with pytest.raises(D3MError, match=r"memory.*smaller model") as caught:
        synthesis.run(case)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["meta", "cuda:63"])
def test_device_that_fails_at_its_first_real_work(
    name: str, case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that looked usable: auto continues on the CPU and says so; a device chosen by name is refused.

    "meta" takes the network and computes, but gives nothing back; "cuda:63" does not even take it.
    """
    expected = run(tiny_model, case)
    monkeypatch.setattr(placed, "choose_device", lambda request: (torch.device(name), ()))
    result = run(tiny_model, case, "auto")
    np.testing.assert_array_equal(result.cemri, expected.cemri)
    assert result.computation.device == "cpu"
    assert [notice.code for notice in result.notices][:1] == ["device-unusable"]
    assert name in result.notices[0].message
    with pytest.raises(D3MError, match=f"{name} cannot be used") as caught:
        run(tiny_model, case, name)
    assert caught.value.exit_code == 3


def test_threads_follow_the_free_memory(case: Case, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little free memory fewer slices are tried at once, by the same estimate that `d3m info` prints."""
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))
    model_input = synthesis.prepare(case)
    pixels = int(np.prod(model_input.slices.shape[2:]))
    one = 2 * engine.slice_memory_mb(synthesis.model.card.recipe.network, pixels) * 2**20  # slices are taken in pairs
    threads = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        monkeypatch.setattr(engine, "free_memory", lambda _: int(6.5 * one))
        assert synthesis._batch(model_input) == 3
        monkeypatch.setattr(engine, "free_memory", lambda _: int(1000 * one))
        assert synthesis._batch(model_input) == 8
    finally:
        torch.set_num_threads(threads)


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
