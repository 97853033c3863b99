"""D3M: a deformation-driven diffusion model that synthesises contrast-enhanced brain MRI.

    import d3m
    result = d3m.synthesize(t1="t1.nii.gz", t2="t2.nii.gz", flair="flair.nii.gz", out="result", quality="preview")

Importing it imports neither torch nor numpy: what stands in `__all__` is loaded when it is first used. The package
knows nothing of 3D Slicer or Qt. Its images are synthetic and for research use only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3m.api import synthesize
    from d3m.errors import D3MError
    from d3m.models.load import load_model
    from d3m.options import SynthesisOptions
    from d3m.results.files import write_result
    from d3m.synthesis import Result, Synthesis
    from d3m.volumes.preprocess.case import read_case

__version__ = "0.2.0"
__all__ = [
    "D3MError",
    "Result",
    "Synthesis",
    "SynthesisOptions",
    "load_model",
    "read_case",
    "synthesize",
    "write_result",
]
_PLACES = {
    "D3MError": "d3m.errors",
    "Result": "d3m.synthesis",
    "Synthesis": "d3m.synthesis",
    "SynthesisOptions": "d3m.options",
    "load_model": "d3m.models.load",
    "read_case": "d3m.volumes.preprocess.case",
    "synthesize": "d3m.api",
    "write_result": "d3m.results.files",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'd3m' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
