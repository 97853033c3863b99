"""The sample case that comes with the module: a simulated patient, with the label of its tumour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

FILES = {"t1": "sample_t1", "t2": "sample_t2", "flair": "sample_flair", "reference": "sample_t1c"}
LABEL = "sample_seg"
LABEL_NAME = "sample enhancing tumour (true)"
ENHANCING = 4
"""The enhancing tumour's value in the label (BraTS until 2021)."""
SHA256 = {
    "sample_t1": "927ba4209cecb90286a4275b66722356fe7ef6ee23e1085c2f8ebedda39df02f",
    "sample_t2": "326ac1a3567eb2821980adbbb1c8b6d3ca6f721990b9751daf960b8a6bdc10b6",
    "sample_flair": "f95e5eab8b2835b0276717c4fc5713f4b22e9817f7e7f8c400fb7214def2993e",
    "sample_t1c": "1cd0596cedafd64074449af91175fe19a4c2461da28cf8b9994c0afe2c4ed13c",
    "sample_seg": "9abb8ecf6f9b8689ba7243369754fdeb5daf1cde2964b9295ebf78c43c718951",
}
"""Of each file, as Slicer's Sample Data module checks them."""


def load(folder: Path) -> dict[str, Any]:
    """Load the sample case.

    Args:
        folder: Where its files are.

    Returns:
        Nodes by parameter; "referenceMask" is the enhancing tumour alone.

    Raises:
        RuntimeError: a file is missing or cannot be read.
    """
    nodes = {}
    for name, file in (("referenceMask", LABEL), *reversed(FILES.items())):  # T1 last: it stays in the views
        properties = {"labelmap": True, "show": False, "name": LABEL_NAME} if name == "referenceMask" else {}
        nodes[name] = slicer.util.loadVolume(str(folder / f"{file}.nii.gz"), properties)
    label = nodes["referenceMask"]
    array = slicer.util.arrayFromVolume(label)
    array[:] = array == ENHANCING
    slicer.util.arrayFromVolumeModified(label)
    label.GetScene().RemoveNode(label.GetStorageNode())  # which no changed label is to replace
    return nodes
