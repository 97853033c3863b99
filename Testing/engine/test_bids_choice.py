"""Which of a participant's images are taken: by words, sidecars and a filter file, and never by the alphabet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3m.batch.bids import BidsCase, find_bids_cases
from d3m.batch.bids_choice import read_filters
from d3m.commands.app import app
from d3m.commands.lists import spread
from d3m.errors import D3MError
from engine.bids_helpers import bids_dataset


def dataset(root: Path, *names: str, **sidecars: dict[str, object]) -> Path:
    """Participant 01 with empty images of these names, and sidecars by the images' names ("T1w" is of all T1w)."""
    bids_dataset(root)
    anat = root / "sub-01/anat"
    anat.mkdir(parents=True)
    for name in names:
        (anat / f"sub-01_{name}.nii.gz").touch()
    for name, content in sidecars.items():
        (anat / f"sub-01_{name}.json").write_text(json.dumps(content))
    return root


def only(root: Path, filters: object = None) -> BidsCase:
    """The case of the only participant."""
    if filters is not None:
        (root / "filter.json").write_text(json.dumps(filters))
    (case,) = find_bids_cases(root, filters=None if filters is None else read_filters(root / "filter.json"))
    return case


def taken(path: Path | None) -> str | None:
    """What a chosen file is called, without the participant."""
    return None if path is None else path.name.removeprefix("sub-01_").removesuffix(".nii.gz")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("acq-preGd_T1w", "acq-postGd_T1w"), "acq-preGd_T1w"),
        (("acq-postGd_T1w", "T1w"), "T1w"),
        (("acq-AXT1POST_T1w", "acq-SAG_T1w"), "acq-SAG_T1w"),
        (("acq-mprage_T1w", "acq-mpragegd_T1w"), "acq-mprage_T1w"),
        (("acq-GADO_T1w", "acq-nogado_T1w"), "acq-nogado_T1w"),
        (("acq-mprage_T1w", "acq-hippocampus_T1w"), "acq-mprage_T1w"),
        (("rec-norm_T1w", "acq-cspine_T1w"), "rec-norm_T1w"),
        (("acq-highresSlab_T1w", "acq-wholebrain_T1w"), "acq-wholebrain_T1w"),
        (("acq-postop_T1w",), "acq-postop_T1w"),  # the patient's state, not the agent
        (("acq-orbits_run-2_T1w", "run-1_T1w"), "run-1_T1w"),
    ],
)
def test_words_decide(names: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    """Contrast and parts of the body in the name rule an image out; what was left and why is said."""
    case = only(dataset(tmp_path, *names))
    assert taken(case.t1) == expected
    assert not case.problem
    for other in set(names) - {expected}:
        (notice,) = case.notices
        assert other.removesuffix("_T1w") in notice.message
        assert "after contrast" in notice.message or "not the whole brain" in notice.message


@pytest.mark.parametrize("names", [("acq-mprage", "acq-tse"), ("rec-a", "rec-b"), ("acq-a_rec-x", "acq-b_rec-x")])
def test_the_alphabet_never_decides(names: tuple[str, ...], tmp_path: Path) -> None:
    """Two acquisitions of which nothing is known are not told apart: the case fails and says what chooses."""
    case = only(dataset(tmp_path, *(f"{name}_T1w" for name in names)))
    assert case.t1 is None
    assert "cannot be told apart" in case.problem
    assert names[0] in case.problem
    assert "--bids-filter-file" in case.problem


@pytest.mark.parametrize("name", ["acq-postGd_T1w", "acq-cspine_T1w", "acq-hippocampus_T1w"])
def test_the_only_image_may_be_the_wrong_one(name: str, tmp_path: Path) -> None:
    """An image after contrast, or of another part of the body, is not used because there is no other."""
    case = only(dataset(tmp_path, name))
    assert case.t1 is None
    assert name.removesuffix("_T1w") in case.problem


@pytest.mark.parametrize(
    "said",
    [
        {"ContrastBolusIngredient": "GADOLINIUM"},
        {"ContrastBolusIngredient": ["GADOLINIUM"]},
        {"ContrastBolusAgent": "Clariscan"},
        {"SeriesDescription": "AX T1 POST GAD"},
        {"ProtocolName": "t1_mprage_sag_post_contrast"},
    ],
)
def test_sidecars_name_the_agent(said: dict[str, object], tmp_path: Path) -> None:
    """A T1w whose sidecar names an agent is what is to be imitated: never the input, another one is."""
    alone = only(dataset(tmp_path / "a", "T1w", T1w=said))
    assert alone.t1 is None
    assert "after contrast" in alone.problem
    assert "sub-01" not in alone.problem.replace("sub-01_", "")
    both = only(dataset(tmp_path / "b", "T1w", "acq-first_T1w", T1w=said, **{"acq-first_T1w": {"EchoTime": 0.01}}))
    assert both.t1 is None  # what stands in sub-01_T1w.json holds for acq-first as well
    two = only(dataset(tmp_path / "c", "run-1_T1w", "run-2_T1w", **{"run-2_T1w": said}))
    assert taken(two.t1) == "run-1_T1w"


@pytest.mark.parametrize(
    "said",
    [
        {"ContrastBolusIngredient": "n/a"},
        {"ContrastBolusIngredient": "NONE"},
        {"ContrastBolusIngredient": None},
        {"SeriesDescription": "T1 without contrast"},
        {"SeriesDescription": "AX T1 PRE"},
        {"EchoTime": 0.002},
    ],
)
def test_sidecars_without_an_agent(said: object, tmp_path: Path) -> None:
    """What says that there was no agent, or nothing about it, leaves the image in."""
    case = only(dataset(tmp_path, "T1w", T1w=said))  # type: ignore[arg-type]
    assert taken(case.t1) == "T1w"
    assert not case.problem


def test_sidecars_are_inherited(tmp_path: Path) -> None:
    """A sidecar at the top speaks for the whole data set; a nearer one has the last word."""
    root = dataset(tmp_path, "acq-x_T1w", "T2w", "FLAIR")
    (root / "acq-x_T1w.json").write_text(json.dumps({"ContrastBolusIngredient": "GADOLINIUM"}))
    assert "GADOLINIUM" in only(root).problem
    (root / "sub-01/anat/sub-01_acq-x_T1w.json").write_text(json.dumps({"ContrastBolusIngredient": "n/a"}))
    assert not only(root).problem


def test_flair_after_contrast_is_said(tmp_path: Path) -> None:
    """FLAIR is often acquired after the agent: it is used, with a warning."""
    case = only(dataset(tmp_path, "FLAIR", FLAIR={"ContrastBolusIngredient": "GADOLINIUM"}))
    assert taken(case.flair) == "FLAIR"
    assert not case.problem
    assert [notice.code for notice in case.notices] == ["after-contrast"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b'{"a": NaN}', b"x" * 2_000_000])
def test_odd_sidecars_do_not_end_the_search(content: bytes, tmp_path: Path) -> None:
    """A damaged sidecar is named and costs nothing else."""
    root = dataset(tmp_path, "T1w", "T2w", "FLAIR")
    (root / "sub-01/anat/sub-01_T1w.json").write_bytes(content)
    case = only(root)
    assert taken(case.t1) == "T1w"
    assert not case.problem
    assert [notice.code for notice in case.notices] == ["unreadable-sidecar"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"t1w": {"acquisition": "tse"}}, "acq-tse_T1w"),
        ({"t1w": {"acq": ["tse", "other"], "datatype": "anat", "suffix": "T1w"}}, "acq-tse_T1w"),
        ({"T1w": {"acquisition": None}, "bold": {"task": "rest"}}, "run-02_T1w"),
        ({"t1w": {"acquisition": None, "run": 2, "extension": ".nii.gz"}}, "run-02_T1w"),
        ({"t1w": {"run": "1"}}, "run-01_T1w"),
        ({"t1w": {"acquisition": "Query.ANY", "reconstruction": "Query.NONE"}}, None),
        ({"t1w": {"acquisition": "postGd"}}, "acq-postGd_T1w"),  # whoever asks for it by name may mean anything by it
    ],
)
def test_filter_file_chooses(filters: object, expected: str | None, tmp_path: Path) -> None:
    """As fMRIPrep takes it: values, lists, null for none, names of PyBIDS or of BIDS, other programs' entries."""
    root = dataset(tmp_path, "run-01_T1w", "run-02_T1w", "acq-mprage_T1w", "acq-tse_T1w", "acq-postGd_T1w", "T2w")
    case = only(root, filters)
    assert taken(case.t1) == expected
    assert taken(case.t2) == "T2w"


def test_filter_file_leaves_sessions_out(tmp_path: Path) -> None:
    """Sessions of which nothing is left are no cases; when nothing at all is left, that is said."""
    root = bids_dataset(tmp_path)
    for session in ("1", "2"):
        anat = root / f"sub-01/ses-{session}/anat"
        anat.mkdir(parents=True)
        for suffix in ("T1w", "T2w", "FLAIR"):
            (anat / f"sub-01_ses-{session}_{suffix}.nii.gz").touch()
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({name: {"session": ["2"]} for name in ("t1w", "t2w", "flair")}))
    assert [case.id for case in find_bids_cases(root, filters=read_filters(path))] == ["sub-01_ses-2"]
    path.write_text(json.dumps({name: {"session": "9"} for name in ("t1w", "t2w", "flair")}))
    with pytest.raises(D3MError, match="leaves no image"):
        find_bids_cases(root, filters=read_filters(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "no JSON object"),
        ('{"t1w": "mprage"}', "must name images"),
        ('{"bold": {}}', "none of t1w"),
        ('{"t1w": {"aquisition": "x"}}', "unknown entity 'aquisition'"),
        ('{"t1w": {"acquisition": {"x": 1}}}', "neither text nor a number"),
        ('{"t1w": {"ceagent": "gad"}}', "with a contrast agent"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_filter_file_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    """Exit code 2, before anything is looked at; a mistyped entity is named with those that exist."""
    root = dataset(tmp_path / "raw", "T1w", "T2w", "FLAIR")
    (tmp_path / "f.json").write_text(text)
    done = CliRunner().invoke(
        app, ["bids", str(root), str(tmp_path / "out"), "participant", "--bids_filter_file", str(tmp_path / "f.json")]
    )
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (
            "ds out participant --participant_label 01 02",
            "ds out participant --participant-label 01 --participant-label 02",
        ),
        ("ds out participant --participant-label 01 02 --n_jobs 2", None),
        ("--participant_label 01 02 ds out participant", None),
        ("ds out --participant_label 01 02 participant", None),
        ("ds out group --participant-label 01 --participant-label=02", None),
        ("--n-jobs 2 ds out participant --participant-label 01 02 --dry-run", None),
    ],
)
def test_lists_as_bids_apps_take_them(written: str, meant: str | None) -> None:
    """Several labels after one name, in every place, with hyphen and underscore; nothing else is swallowed."""
    known = {"--participant-label", "--n-jobs", "--dry-run"}
    found = spread(written.split(), known, {"--participant-label"}, {"--n-jobs"}, 3, ["participant", "group"])
    if meant is not None:
        assert found == meant.split()
    labels = [found[k + 1] for k, part in enumerate(found) if part == "--participant-label"]
    labels += [part.partition("=")[2] for part in found if part.startswith("--participant-label=")]
    assert labels == ["01", "02"]
    others = [part for part in found if part in ("ds", "out", "participant", "group", "--n-jobs", "--dry-run", "2")]
    expected = written.replace("n_jobs", "n-jobs").split()
    assert others == [
        part for part in expected if part in ("ds", "out", "participant", "group", "--n-jobs", "--dry-run", "2")
    ]


def test_participants_are_chosen_as_by_other_apps(tmp_path: Path, tiny_model: Path) -> None:
    """The command as fMRIPrep's users write it: two of three participants would run."""
    root = bids_dataset(tmp_path / "raw", "01", "02", "03")
    done = CliRunner().invoke(
        app,
        ["bids", str(root), str(tmp_path / "out"), "participant", "--participant_label", "01", "03", "--dry-run",
         "--model", str(tiny_model), "--n_jobs", "1", "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "2 of 2 cases would run" in done.output
    assert "sub-02" not in done.output
