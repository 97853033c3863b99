"""The brain in a whole head: by HD-BET's command line (its versions 1 and 2), else by the average brain."""

from __future__ import annotations

import stat
import sys

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from d3m.errors import D3MError
from d3m.volumes.preprocess import extraction, learned, programs
from d3m.volumes.preprocess.atlas import atlas
from d3m.volumes.preprocess.extraction import extract_brain
from d3m.volumes.preprocess.programs import HD_BET, HD_BET_VARIABLE, HD_BET_WEIGHTS, SYNTHSTRIP_VARIABLE
from d3m.volumes.types import Volume
from engine.volume_helpers import rotation


def head(rotation=None):
    """The average brain with skull, scalp and a neck, turned in the scanner; T1 and its brain, 3 mm."""
    t1, share = atlas()
    room = ((8, 8), (8, 8), (12, 10))
    brain = np.pad(share.data, room) > 0.5
    data = np.pad(np.where(share.data > 0.5, t1.data, 0), room)
    away = ndimage.distance_transform_edt(~brain, sampling=3)
    bright = np.percentile(data[brain], 99)
    layers = np.select(
        [away == 0, away <= 3, away <= 8, away <= 15], [data, 0.2 * bright, 0.05 * bright, 1.2 * bright], 0
    )
    x, y = (np.arange(n)[:, None, None] - n / 2 for n in data.shape[:2])
    neck = (x**2 + y.reshape(1, -1, 1) ** 2 < 18**2) & (np.arange(data.shape[2]) < 22) & (away > 8)
    layers[neck] = 0.5 * bright
    noise = np.abs(np.random.default_rng(0).normal(0, 0.01 * bright, data.shape))
    affine = t1.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [8, 8, 12]
    rotation = np.eye(4) if rotation is None else rotation
    return Volume((layers + noise).astype(np.float32), rotation @ affine), brain


def dice(one, other):
    """Of two masks."""
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture
def allowed():
    """Packages whose networks a test may use; empty unless it adds one."""
    return []


@pytest.fixture(autouse=True)
def _no_program(monkeypatch, allowed):
    """Extractors of the machine that the tests run on stay out of it."""
    real = learned.installed
    monkeypatch.setattr(learned, "installed", lambda package: real(package) if package in allowed else None)
    monkeypatch.setenv(HD_BET_VARIABLE, "off")
    monkeypatch.setenv(SYNTHSTRIP_VARIABLE, "off")


def test_head_without_any_program():
    """The average brain finds the brain of a tilted head; the notice says how, and how to do better.

    That of an upright one is found in `test_heads_through_the_reader`.
    """
    t1, brain = head(rotation(18, 0))
    found = extract_brain(t1)
    mask, notices = found.mask, found.notices
    assert dice(mask, brain) > 0.93
    assert mask.shape == t1.data.shape
    assert [(notice.code, notice.volume) for notice in notices] == [("brain-extracted", "t1")]
    assert "average brain" in notices[0].message
    assert "--brain-mask" in notices[0].message


def test_a_dark_bite_stays_brain():
    """Where a coil, an artefact or a cyst darkens T1 from the surface to deep inside, the inside still is brain."""
    t1, brain = head()
    depth = ndimage.distance_transform_edt(brain, sampling=3)
    centre = np.round(np.argwhere(brain).mean(axis=0)).astype(int)
    bite = np.zeros_like(brain)
    bite[centre[0] + 8 : centre[0] + 16, centre[1] + 6 :, centre[2] : centre[2] + 8] = True
    bite &= brain
    data = np.where(bite, 0.1 * t1.data, t1.data).astype(np.float32)
    mask = extract_brain(Volume(data, t1.affine)).mask
    assert mask[bite & (depth > 16)].mean() > 0.95
    assert dice(mask, brain) > 0.93


def test_where_tissue_does_not_tell_an_average_brain_does(monkeypatch):
    """A head whose brain cannot be cut out by its tissue gets the registered average brain, and that is said."""
    monkeypatch.setattr(extraction, "_by_tissue", lambda t1: None)
    t1, brain = head()
    found = extract_brain(t1)
    assert dice(found.mask, brain) > 0.9
    assert "found with an average brain" in found.notices[0].message


def test_no_brain_is_refused():
    """A ball of skull and scalp without a brain in it is refused with the way to put it right."""
    x, y, z = (np.arange(64)[(slice(None), *[None] * k)] - 31.5 for k in (2, 1, 0))
    radius = 3 * np.sqrt(x**2 + y**2 + z**2)
    random = np.random.default_rng(0)
    data = np.select([radius < 70, radius < 80], [random.uniform(80, 100, radius.shape), 10.0], 0)
    with pytest.raises(D3MError, match="not brain-extracted .*no brain was found") as caught:
        extract_brain(Volume(data.astype(np.float32), np.diag([3.0, 3, 3, 1])))
    assert caught.value.exit_code == 2
    assert "HD-BET" in caught.value.hint


PROGRAM = """#!{python}
import sys
from pathlib import Path
arguments = sys.argv[1:]
if "--help" in arguments:
    print({help!r})
    sys.exit(0)
{action}
import nibabel, numpy
image = nibabel.load(arguments[arguments.index("-i") + 1])
mask = numpy.zeros(image.shape, "u1")
mask[20:60, 20:70, 20:60] = 1
out = arguments[arguments.index("-o") + 1].replace(".nii.gz", "")
assert set({needed!r}) <= set(arguments), arguments
nibabel.save(nibabel.Nifti1Image(mask, image.affine), out + {suffix!r})
"""
VERSIONS = {
    1: {"help": "-mode -tta -s", "needed": ["-mode", "fast", "-tta", "0"], "suffix": "_mask.nii.gz"},
    2: {"help": "--save_bet_mask --disable_tta", "needed": ["--save_bet_mask"], "suffix": "_bet.nii.gz"},
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a program with HD-BET's command line, and weights in a home of its own, where the engine looks."""

    def do(version=2, action="", weights=True, named=True):
        home = tmp_path / "home with space"
        place = home / HD_BET_WEIGHTS[2 - version]
        place.parent.mkdir(parents=True)
        if weights:
            place.write_bytes(b"weights")
        program = tmp_path / "bin" / "hd-bet"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable, action=action, **VERSIONS[version]))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("HOME", str(home))
        if named:
            monkeypatch.setenv(HD_BET_VARIABLE, str(program))
        else:
            monkeypatch.delenv(HD_BET_VARIABLE)
            monkeypatch.setenv("PATH", str(program.parent))
        return program

    return do


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line")
@pytest.mark.parametrize(("version", "named"), [(1, True), (2, True), (2, False)])
def test_program(install, version, named, monkeypatch):
    """Either version's mask is used, named by the variable or found on PATH; the caller's Python leaks into neither."""
    install(version, named=named)
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    found = extract_brain(head()[0], "hd-bet")
    mask = found.mask
    assert mask[20:60, 20:70, 20:60].all()
    assert mask.sum() == 40 * 50 * 40
    assert found.how == "HD-BET"
    assert "was found with HD-BET." in found.notices[0].message


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"weights": False}, "run it once yourself to download them"),
        ({"action": "sys.exit(3)"}, "HD-BET failed"),
        ({"action": "import time; time.sleep(60)"}, "HD-BET failed"),
        ({"action": "sys.exit(0)"}, "HD-BET left no mask"),
        ({"action": "Path('brain_bet.nii.gz').write_bytes(b'no image'); sys.exit(0)"}, "mask cannot be read"),
    ],
)
def test_program_that_fails(install, how, words, monkeypatch):
    """Without weights (nothing is downloaded), after a failure, a hang or a broken mask the other way is taken."""
    monkeypatch.setattr(programs, "TIMEOUT_S", 3.0)
    monkeypatch.setattr(extraction, "_by_tissue", lambda t1: head()[1])
    install(**how)
    found = extract_brain(head()[0])
    assert words in found.notices[0].message
    assert found.how == "own"
    assert dice(found.mask, head()[1]) == 1
    with pytest.raises(D3MError, match=words):
        extract_brain(head()[0], "hd-bet")


def test_variable_that_names_nothing(monkeypatch, tmp_path):
    """A wrong path is said, not ignored; "off" means off."""
    assert HD_BET.find() is None
    monkeypatch.setenv(HD_BET_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(D3MError, match=f"{HD_BET_VARIABLE} names no program"):
        extract_brain(head()[0])


def test_heads_through_the_reader(tmp_path):
    """Three whole heads become a case: the brain is found in T1 and named, nothing else is complained about."""
    from d3m.volumes.preprocess.case import read_case

    t1, brain = head()
    bright = t1.data.max()
    contrasts = {"t1": t1.data, "t2": np.where(brain, 1.4 * bright - t1.data, t1.data * 0.8), "flair": None}
    x = np.arange(t1.data.shape[0])[:, None, None]
    contrasts["flair"] = np.where(brain, np.abs(t1.data - 0.45 * bright) + 30 + 0.1 * x, t1.data * 0.6)
    paths = []
    for name, data in contrasts.items():
        paths.append(tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), t1.affine), paths[-1])
    case = read_case(*paths)
    assert dice(case.brain, brain) > 0.93
    assert ("brain-extracted", "t1") in [(notice.code, notice.volume) for notice in case.notices]
    assert "registered" not in [notice.code for notice in case.notices]
    assert case.brain_source == "own"


@pytest.fixture(scope="module")
def by_the_package():
    """A head of thick oblique slices, and the mask that deepbet's own command makes of it."""
    deepbet = pytest.importorskip("deepbet")
    t1, _ = head(rotation(12, 0) @ rotation(8, 2))
    affine = t1.affine @ np.diag([1.0, 1, 2, 1])
    affine[:3, 3] += t1.affine[:3, 2] / 2
    data = ndimage.zoom(t1.data, (1, 1, 0.5), order=1, grid_mode=True, mode="nearest")
    t1 = Volume(data[:, ::-1].copy(), affine @ _mirror(1, data.shape[1]))
    _, mask, _ = deepbet.BrainExtraction(no_gpu=True).run(nibabel.Nifti1Image(t1.data, t1.affine))
    return t1, np.asarray(mask.dataobj) > 0


def _mirror(axis, size):
    """Index to index: the other way round along one axis."""
    result = np.eye(4)
    result[axis, axis], result[axis, 3] = -1, size - 1
    return result


def test_deepbet_is_used_as_its_authors_do(by_the_package, allowed, monkeypatch):
    """The default extractor's mask is that of deepbet's own command, for any orientation; it says so, and how much."""
    allowed.append(learned.DEEPBET)
    monkeypatch.setattr(extraction, "_by_tissue", lambda t1: None)  # the second opinion: `test_doubt_is_said`
    t1, theirs = by_the_package
    found = extract_brain(t1)
    assert dice(found.mask, theirs) > 0.995
    assert found.how.startswith("deepbet 1.")
    volume = found.mask.sum() * abs(np.linalg.det(t1.affine[:3, :3])) / 1000
    assert f"({volume:.0f} ml) was found with deepbet" in found.notices[0].message


def test_doubt_is_said(monkeypatch):
    """Where our own extraction sees a brain that differs by more than a tenth, a notice gives both volumes."""
    t1, brain = head()
    smaller = ndimage.binary_erosion(brain, iterations=2)
    monkeypatch.setattr(learned, "installed", lambda package: "1.0.2")
    monkeypatch.setattr(learned, "by_deepbet", lambda scan: brain)
    for other, codes in ((brain, ["brain-extracted"]), (smaller, ["brain-extracted", "brain-doubtful"])):
        monkeypatch.setattr(extraction, "_by_tissue", lambda scan, other=other: other)
        found = extract_brain(t1)
        assert [notice.code for notice in found.notices] == codes
        assert np.array_equal(found.mask, brain)
    assert f"{smaller.sum() * 0.027:.0f} ml" in found.notices[1].message


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda scan: None, "sees no brain"),
        (lambda scan: np.ones(scan.data.shape, bool), "ml"),
        (lambda scan: (_ for _ in ()).throw(RuntimeError("out of memory")), "not enough memory"),
        (lambda scan: (_ for _ in ()).throw(FileNotFoundError("lacks its file")), "lacks its file"),
    ],
)
def test_what_the_network_cannot_do_the_fall_back_does(monkeypatch, made, words):
    """Nothing found, far too much found, no memory, a damaged package: our own way goes on and the reason is given."""
    t1, brain = head()
    monkeypatch.setattr(learned, "installed", lambda package: "1.0.2" if package == learned.DEEPBET else None)
    monkeypatch.setattr(learned, "by_deepbet", made)
    monkeypatch.setattr(extraction, "_by_tissue", lambda scan: brain)
    found = extract_brain(t1)
    assert found.how == "own"
    assert words in found.notices[0].message
    with pytest.raises(D3MError, match=words):
        extract_brain(t1, "deepbet")


def test_extractors_that_are_not_there(tmp_path):
    """An extractor that was asked for by name is not silently replaced by another."""
    for choice in ("deepbet", "hd-bet", "synthstrip"):
        with pytest.raises(D3MError, match="is not installed") as caught:
            extract_brain(head()[0], choice)
        assert "--brain auto" in caught.value.hint
    with pytest.raises(D3MError, match="no brain extractor 'bet'"):
        extract_brain(head()[0], "bet")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line")
def test_synthstrip(monkeypatch, tmp_path):
    """SynthStrip's mask is used when it is asked for."""
    program = tmp_path / "mri_synthstrip"
    program.write_text(
        f"#!{sys.executable}\nimport sys, nibabel, numpy\na = sys.argv\nimage = nibabel.load(a[a.index('-i') + 1])\n"
        "mask = numpy.zeros(image.shape, 'u1')\nmask[20:60, 20:70, 20:60] = 1\n"
        "nibabel.save(nibabel.Nifti1Image(mask, image.affine), a[a.index('-m') + 1])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv(SYNTHSTRIP_VARIABLE, str(program))
    found = extract_brain(head()[0], "synthstrip")
    assert found.how == "SynthStrip"
    assert found.mask.sum() == 40 * 50 * 40
