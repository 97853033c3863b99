"""A BIDS data set in, BIDS derivatives out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from d3m.batch.bids import BidsCase, check_places, find_bids_cases
from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.system import locks
from d3m.volumes.preprocess.case import read_case
from engine.bids_helpers import bids_dataset, tree

VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))


def bids(*arguments: object) -> Result:
    """Run `d3m bids` in this process, on one worker."""
    return CliRunner().invoke(app, ["bids", *map(str, arguments), "--n-jobs", "1", "--device", "cpu"])


def empty_files(root: Path, *names: str) -> Path:
    """A data set of empty files, enough to find cases in."""
    bids_dataset(root)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def find_one(root: Path, *names: str) -> BidsCase:
    """The only case of participant 01 with these images."""
    (case,) = find_bids_cases(empty_files(root, *(f"sub-01/anat/sub-01_{name}.nii.gz" for name in names)))
    return case


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path]:
    """A data set with one good case, one session, one cut file, one missing contrast; its derivatives, both levels."""
    folder = tmp_path_factory.mktemp("bids")
    root = bids_dataset(folder / "raw", "01", "02/post", "03", "04")
    cut = root / "sub-03/anat/sub-03_FLAIR.nii.gz"
    cut.write_bytes(cut.read_bytes()[:5000])
    (root / "sub-04/anat/sub-04_T2w.nii.gz").unlink()
    shutil.copy(root / "sub-01/anat/sub-01_T2w.nii.gz", root / "sub-01/anat/sub-01_run-2_T2w.nii.gz")
    before, out = tree(root), folder / "out"
    done = bids(root, out, "participant", "--model", tiny_model, "--quality", "preview")
    assert done.exit_code == 2, done.output
    assert "2 of 4 cases failed" in done.output
    assert "T2: 2 images were found; run-2 was taken" in " ".join(done.output.split())
    assert bids(root, out, "group").exit_code == 0
    assert tree(root) == before  # a data set is read and never written
    return root, out


def test_contrast_enhanced_and_phase_images_are_never_taken(tmp_path: Path) -> None:
    """T1w with `ce-` is what we imitate, not an input; a phase image is no T1w either."""
    case = find_one(tmp_path, "ce-gadolinium_T1w", "T1w", "part-phase_T2w", "part-mag_T2w", "ce-x_FLAIR")
    assert case.t1 == tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"
    assert case.t2 == tmp_path / "sub-01/anat/sub-01_part-mag_T2w.nii.gz"
    assert case.flair is None


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("run-1_T1w", "run-2_T1w", "run-10_T1w"), "run-10_T1w"),  # numbers, not texts
        (("acq-fast_T1w", "T1w"), "T1w"),
        (("acq-a_run-1_T1w", "acq-a_run-2_T1w"), "acq-a_run-2_T1w"),
        (("rec-norm_T1w", "acq-z_T1w"), "acq-z_T1w"),
    ],
)
def test_choice_among_several_is_said(names: tuple[str, ...], taken: str, tmp_path: Path) -> None:
    """The last run, the plain acquisition, no reconstruction; what was left is named, the participant is not."""
    case = find_one(tmp_path, *names)
    assert case.t1 == tmp_path / f"sub-01/anat/sub-01_{taken}.nii.gz"
    (notice,) = case.notices
    assert notice.code == "several-images"
    assert f"T1: {len(names)} images" in notice.message
    assert "sub-01" not in notice.message
    assert not case.problem


def test_candidates_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """Echoes, or the same name with two endings: nobody can choose, so the case fails with that reason."""
    assert "2 candidates" in find_one(tmp_path / "a", "echo-1_T1w", "echo-2_T1w").problem
    (twice,) = find_bids_cases(empty_files(tmp_path / "b", "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T1w.nii.gz"))
    assert "2 candidates" in twice.problem


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_content_that_was_not_fetched(tmp_path: Path) -> None:
    """A link to nothing, as git-annex leaves it, is named as such."""
    root = empty_files(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    (root / "sub-01/anat/sub-01_T1w.nii.gz").symlink_to("../.git/annex/nowhere")
    (case,) = find_bids_cases(root)
    assert "T1 is not on this disk" in case.problem


def test_participants_and_sessions_are_chosen(tmp_path: Path) -> None:
    """Labels with and without their prefix; a case for each session."""
    names = [f"sub-{s}/ses-{k}/anat/sub-{s}_ses-{k}_T1w.nii.gz" for s in ("A", "B") for k in ("1", "2")]
    root = empty_files(tmp_path, *names, "sub-C/anat/sub-C_T1w.nii.gz")
    assert [c.id for c in find_bids_cases(root)] == [
        "sub-A_ses-1",
        "sub-A_ses-2",
        "sub-B_ses-1",
        "sub-B_ses-2",
        "sub-C",
    ]
    assert [c.id for c in find_bids_cases(root, ["sub-A", "B"], ["2"])] == ["sub-A_ses-2", "sub-B_ses-2"]
    with pytest.raises(D3MError, match=r"no participant D\. It has, for example: A, B"):
        find_bids_cases(root, ["D"])
    with pytest.raises(D3MError, match="no session 3"):
        find_bids_cases(root, (), ["ses-3"])


BAD = {
    "no folder": ("nowhere", "out", "not there"),
    "not BIDS": ("plain", "out", "no dataset_description.json"),
    "damaged description": ("damaged", "out", "cannot be read"),
    "no version": ("versionless", "out", "no BIDSVersion"),
    "no participants": ("empty", "out", "no participants"),
    "invalid label": ("label", "out", "not valid in BIDS"),
    "missing contrast": ("missing", "out", "T2 and FLAIR are missing"),
    "two candidates": ("twice", "out", "2 candidates"),
    "inside": ("missing", "missing/results", "inside the data set"),
    "the same": ("missing", "missing", "inside the data set"),
    "around": ("around/raw", "around", "inside the output folder"),
    "a file": ("missing", "file", "is a file"),
    "others' files": ("missing", "plain", "something other than derivatives"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str, tmp_path: Path, tiny_model: Path) -> None:
    """Exit code 2, what is wrong and how to put it right, and nothing was written anywhere."""
    root, out, message = BAD[name]
    bids_dataset(tmp_path / "empty")
    empty_files(tmp_path / "missing", "sub-01/anat/sub-01_T1w.nii.gz")
    empty_files(tmp_path / "around/raw", "sub-01/anat/sub-01_T1w.nii.gz")
    empty_files(tmp_path / "twice", *(f"sub-01/anat/sub-01_{n}.nii.gz" for n in ("echo-1_T1w", "echo-2_T1w", "T2w")))
    empty_files(tmp_path / "label", "sub-0_1/anat/x")
    for place, text in (("plain", None), ("damaged", "{"), ("versionless", '{"Name": "x"}')):
        (tmp_path / place / "sub-01").mkdir(parents=True)
        (tmp_path / place / "other").touch()
        if text is not None:
            (tmp_path / place / "dataset_description.json").write_text(text)
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    done = bids(tmp_path / root, tmp_path / out, "participant", "--model", tiny_model)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_output_that_cannot_be_written(tmp_path: Path, tiny_model: Path) -> None:
    """A read-only place is refused before the work, with exit code 3."""
    root = empty_files(tmp_path / "raw", *(f"sub-1/anat/sub-1_{name}.nii.gz" for name in ("T1w", "T2w", "FLAIR")))
    (tmp_path / "place").mkdir()
    code = "import sys; from d3m.commands.app import main; main()"  # the mount lives in a child alone
    script = (
        f"mount -t tmpfs -o ro none {tmp_path}/place && "
        f'{sys.executable} -c "{code}" bids {root} {tmp_path}/place/out participant --model {tiny_model}; echo code $?'
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=120, env=environment
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("mounts are not allowed here")
    assert "The output folder cannot be written." in done.stderr
    assert done.stdout.strip().endswith("code 3")


def test_derivatives_inside_the_data_set(tmp_path: Path) -> None:
    """BIDS' own place, derivatives/<name>, is allowed; a dry run says what is missing and writes nothing."""
    root = bids_dataset(tmp_path / "raw", "01")
    before = tree(root)
    done = bids(root, root / "derivatives/d3m", "group", "--dry-run")
    assert done.exit_code == 2
    assert "no derivatives yet" in done.output
    assert tree(root) == before


def test_folders_made_beforehand(tmp_path: Path) -> None:
    """Snakemake makes the folders of its outputs before the command runs: they are no one else's files."""
    root = empty_files(tmp_path / "raw", "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "out/sub-01/anat").mkdir(parents=True)
    check_places(root, tmp_path / "out")
    (tmp_path / "out/sub-01/anat/notes.txt").touch()
    with pytest.raises(D3MError, match="something other"):
        check_places(root, tmp_path / "out")


@pytest.mark.skipif(VALIDATOR is None, reason="the BIDS validator is not installed")
def test_accepted_by_the_bids_validator(derived: tuple[Path, Path]) -> None:
    """The validator of the BIDS maintainers finds no error in the derivatives, and finds the images in them."""
    done = subprocess.run([str(VALIDATOR), str(derived[1]), "--format", "json"], capture_output=True, timeout=120)
    report = json.loads(done.stdout)
    errors = [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]
    assert errors == []
    assert sorted(report["summary"]["subjects"]) == ["01", "02"]
    assert report["summary"]["totalFiles"] >= 16  # two cases of four images with their sidecars


def test_names_and_sidecars(derived: tuple[Path, Path]) -> None:
    """Every image is marked as synthetic in its own sidecar, names its sources, and never carries `ce-`."""
    root, out = derived
    anat = out / "sub-02/ses-post/anat"
    images = {p.name.removesuffix(".nii.gz").removeprefix("sub-02_ses-post_") for p in anat.glob("*.nii.gz")}
    assert images == {
        "desc-synthT1c_T1w",
        "desc-synthSubtraction_T1w",
        "desc-synthFirstSample_T1w",
        "label-enhancement_mask",
        "label-enhancement_probseg",
        "desc-synthT1c_xfm",
    }
    assert not [p for p in out.rglob("*") if "_ce-" in p.name]
    for image in images:
        sidecar = json.loads((anat / f"sub-02_ses-post_{image}.json").read_text())
        assert sidecar["Synthetic"] is True
        assert "no contrast agent" in sidecar["Description"]
        assert "bids:raw:sub-02/ses-post/anat/sub-02_ses-post_FLAIR.nii.gz" in sidecar["Sources"]
        assert sidecar["SkullStripped"] is True
        assert str(root) not in json.dumps(sidecar)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["SourceDatasets"][0]["URL"] == root.resolve().as_uri()


def test_the_image_is_that_of_the_engine(derived: tuple[Path, Path], tiny_model: Path) -> None:
    """What lies under the BIDS name is what the engine makes of these scans, on T1's grid."""
    root, out = derived
    anat = root / "sub-02/ses-post/anat"
    case = read_case(*(anat / f"sub-02_ses-post_{suffix}.nii.gz" for suffix in ("T1w", "T2w", "FLAIR")))
    wanted = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview")).run(case)
    found = nibabel.load(out / "sub-02/ses-post/anat/sub-02_ses-post_desc-synthT1c_T1w.nii.gz")
    np.testing.assert_allclose(np.asarray(found.dataobj), wanted.cemri, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(found.affine, case.t1.affine)


def test_table_and_its_dictionary(derived: tuple[Path, Path]) -> None:
    """A row a case, failures with their reason, the choice among runs with the result; every column is explained."""
    out = derived[1]
    with (out / "summary.tsv").open(newline="") as f:
        rows = {row["participant_id"]: row for row in csv.DictReader(f, delimiter="\t")}
    assert [rows[f"sub-0{k}"]["status"] for k in (1, 2, 3, 4)] == ["done", "done", "failed", "failed"]
    assert "run-2 was taken" in rows["sub-01"]["notices"]
    assert "FLAIR" in rows["sub-03"]["reason"]
    assert "T2 is missing" in rows["sub-04"]["reason"]
    assert rows["sub-02"]["session_id"] == "ses-post"
    assert float(rows["sub-02"]["predicted_enhancing_volume"]) >= 0
    assert all(value for row in rows.values() for value in row.values())  # n/a, never empty
    assert list(json.loads((out / "summary.json").read_text())) == list(rows["sub-01"])


def test_goes_on_by_what_is_whole(derived: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    """A second run makes nothing again but the result that was cut; left-overs of a killed process are removed."""
    root, out = derived[0], tmp_path / "out"
    shutil.copytree(derived[1], out)
    before = tree(out)
    cut = out / "sub-01/anat/sub-01_label-enhancement_mask.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-20])
    (out / "sub-01/.d3m-partial-x").mkdir()
    arguments = (
        "--model",
        tiny_model,
        "--quality",
        "preview",
        "--participant-label",
        "01",
        "--participant-label",
        "02",
    )
    done = bids(root, out, "participant", *arguments)
    assert done.exit_code == 0, done.output
    assert "1 done, 1 there already" in done.output
    after = tree(out)
    assert {n for n in after if n.endswith(".nii.gz") and after[n] != before[n]} == set()
    assert not (out / "sub-01/.d3m-partial-x").exists()
    other = bids(root, out, "participant", *arguments, "--seed", "1", "--dry-run")
    assert "there already" in other.output
    assert tree(out) == after


def test_case_in_another_runs_hands(derived: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    """A case that another run holds is left to it and counted as such; the exit code is 0."""
    out = tmp_path / "out"
    with locks.hold(out / ".d3m/locks/sub-01") as ours:
        assert ours
        done = bids(
            derived[0], out, "participant", "--model", tiny_model, "--participant-label", "01", "--quality", "preview"
        )
    assert done.exit_code == 0, done.output
    assert "1 being made by another run" in done.output
    assert not (out / "sub-01").exists()
