"""Nothing that is kept names a patient or a file: marked scans go in, every byte that comes out is searched."""

from __future__ import annotations

import gzip
import shutil
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.uid import generate_uid

from conftest import AFFINE, TinyCase, tiny_volumes
from engine.command_helpers import d3m_command, environment
from engine.dicom_helpers import write_series

MARKS = ("MUELLER", "ANNA", "PID4711", "19500131", "31.01.1950", "Klinikum")
"""Name, number, birth date and hospital, in file names, folders and headers."""


def marked_case(case: TinyCase, folder: Path) -> dict[str, Path]:
    """The tiny case under names and with headers that tell who it is."""
    place = folder / "Klinikum" / "MUELLER^ANNA PID4711"
    place.mkdir(parents=True)
    paths = {}
    for name in ("t1", "t2", "flair", "t1c"):
        image = nibabel.load(getattr(case, name))
        image.header["descrip"], image.header["aux_file"] = b"MUELLER ANNA PID4711", b"19500131 Klinikum"
        image.header["intent_name"], image.header["db_name"] = b"MUELLER", b"ANNA"
        paths[name] = place / f"MUELLER_ANNA_19500131_{name}.nii.gz"
        nibabel.save(image, paths[name])
    return paths


def found_in(folder: Path, allowed: tuple[str, ...] = ()) -> list[str]:
    """Files whose name or content (also unpacked) has a mark."""
    hits = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content += gzip.decompress(content)
        text = content.upper() + path.relative_to(folder).as_posix().upper().encode()
        hits += [f"{path.name}: {mark}" for mark in MARKS if mark.upper().encode() in text and path.name not in allowed]
    return hits


def run(tmp_path: Path, *arguments: Any) -> Any:
    """Run the command with a temporary folder of its own."""
    (tmp_path / "temporary").mkdir(exist_ok=True)
    return d3m_command(*arguments, env=environment(TMPDIR=str(tmp_path / "temporary")))


def test_results_name_nobody(tmp_path: Path, tiny_case: TinyCase, tiny_model: Path) -> None:
    """Every file of a full result, and the lines of progress, are free of the marks; nothing temporary stays."""
    paths = marked_case(tiny_case, tmp_path / "in")
    done = run(
        tmp_path, "synthesize", "--t1", paths["t1"], "--t2", paths["t2"], "--flair", paths["flair"], "--reference",
        paths["t1c"], "--model", tiny_model, "--quality", "best", "--trace", "--device", "cpu", "--progress", "json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) > 8
    assert found_in(tmp_path / "out") == []
    assert [mark for mark in MARKS if mark in done.stdout + done.stderr] == []
    assert list((tmp_path / "temporary").rglob("*")) == []


def test_results_from_dicom_name_nobody(tmp_path: Path, tiny_model: Path) -> None:
    """The patient's name stays in the DICOM output, where it belongs, and goes nowhere else."""
    study, frame = generate_uid(), generate_uid()

    def mark(dataset: Any, _: int) -> Any:
        # such a name and such a date break the standard's rules: libraries warn of them, and show them
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "MUELLER-ANNA", "PID4711", "31.01.1950"
        dataset.InstitutionName, dataset.PatientSex = "Klinikum", "U"
        return dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (name, text) in enumerate((("t1", "AX T1"), ("t2", "AX T2"), ("flair", "FLAIR")), 1):
            data, told = np.rint(tiny_volumes()[name]), f"{text} MUELLER-ANNA PID4711"
            write_series(data, AFFINE, tmp_path / f"Klinikum MUELLER/{number}", told, study, frame, number, mark)
    done = run(
        tmp_path, "synthesize", "--dicom", tmp_path / "Klinikum MUELLER", "--model", tiny_model, "--quality", "preview",
        "--device", "cpu", "--out", tmp_path / "out", "--dicom-out", tmp_path / "dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert found_in(tmp_path / "out") == []
    assert [mark for mark in MARKS if mark in done.stderr] == []
    assert any("MUELLER" in hit for hit in found_in(tmp_path / "dicom"))
    assert not any("Klinikum" in hit for hit in found_in(tmp_path / "dicom"))


def test_batch_names_nobody_but_by_the_ids_it_was_given(tmp_path: Path, tiny_case: TinyCase, tiny_model: Path) -> None:
    """The table of a batch has the ids of the request and no path, also where cases fail, each in its own way."""
    good = marked_case(tiny_case, tmp_path / "in")
    place = good["t1"].parent
    bad = {
        "cut": good["t2"].read_bytes()[:2000], "text": b"MUELLER ANNA 19500131",
        "dicom": b"\0" * 128 + b"DICM" + b"x" * 99,
        "gzip": gzip.compress(b"MUELLER", mtime=0), "nrrd": b"NRRD0004\ntype: MUELLER\ncontent: ANNA\n\n",
        "flat": nibabel.Nifti1Image(np.zeros((9, 9, 9), np.float32), AFFINE).to_bytes(),
    }  # fmt: skip
    rows = ["id,t1,t2,flair", f"whole,{good['t1']},{good['t2']},{good['flair']}"]
    for name, content in bad.items():
        path = place / f"MUELLER_{name}.nii{'.gz' if name in ('cut', 'gzip') else ''}"
        path.write_bytes(content)
        rows.append(f"{name},{good['t1']},{path},{good['flair']}")
    rows.append(f"same,{good['t1']},{good['t1']},{good['flair']}")
    rows.append(f"folder,{good['t1']},{place},{good['flair']}")
    rows.append(f"gone,{good['t1']},{place / 'MUELLER_gone.nii'},{good['flair']}")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = run(tmp_path, "batch", tmp_path / "cases.csv", "--out", tmp_path / "out", "--model", tiny_model,
               "--quality", "preview", "--device", "cpu")  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert found_in(tmp_path / "out") == []
    summary = (tmp_path / "out/summary.csv").read_text(encoding="utf-8")
    assert all(name in summary for name in ("whole", *bad, "same", "folder", "gone"))
    assert (tmp_path / "out/whole/cemri.nii.gz").is_file()


def test_imported_models_name_nobody(tmp_path: Path, tiny_model: Path) -> None:
    """A model that was imported from a telling place does not remember the place."""
    place = tmp_path / "Klinikum MUELLER"
    shutil.copytree(tiny_model, place)
    done = d3m_command("models", "import", place, env=environment(D3M_MODELS=str(tmp_path / "models")))
    assert done.returncode == 0, done.stderr
    assert found_in(tmp_path / "models") == []
