"""Which node is which scan; scans of two patients, or of two examinations, are never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Assignment, Identity, Inputs  # noqa: E402


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """A scene without views."""
    return MRMLHost()


class Named:
    """What assigning needs of a node."""

    def __init__(self, name: str, **attributes: str) -> None:
        self.name, self.attributes = name, attributes

    def GetName(self) -> str:
        return self.name

    def GetAttribute(self, name: str) -> str | None:
        return self.attributes.get(name.replace(".", "_"))

    def IsA(self, name: str) -> bool:
        return name == "vtkMRMLScalarVolumeNode"


SPOKEN = {
    "t1": """BraTS2021_00000_t1 | BraTS-GLI-00001-000-t1n | case_T1 | t1 | 3: T1 AX | AX T1 PRE | T1 pre contrast
        | T1w without contrast | SAG T1 FLAIR | MPRAGE | t1_mprage_sag_iso | T1 w/o contrast | T1 non-contrast
        | t1_native | 3D T1 BRAVO | T1 NO GAD | sample_t1 | T1 - precontrast | sub-01_T1w""",
    "t1c": """BraTS2021_00000_t1ce | BraTS-GLI-00001-000-t1c | case_T1Gd | T1GD | T1 post | AX T1 POST GAD | T1+C
        | T1 + C | T1w CE | T1-CE | t1_mprage_sag_iso+KM | T1 C+ | T1 with contrast | T1 gadolinium | T1Post
        | 3D T1 post-contrast | MPRAGE_GD | T1W_3D_CE | t1_km | T1c | T1CE MPRAGE | AX T1 +GD | BRAVO +C | T1 W/C
        | T1 enhanced | sub-01_ce-gadolinium_T1w | t1post | T1 Dotarem | T1_contrast""",
    "t2": "BraTS2021_00000_t2 | BraTS-GLI-00001-000-t2w | case_T2 | AX T2 TSE | sub-01_T2w | T2 FSE",
    "flair": """BraTS2021_00000_flair | BraTS-GLI-00001-000-t2f | AX T2 FLAIR | FLAIR | t2_tirm_tra_dark-fluid
        | sub-01_FLAIR | T2_space_da-fl | 3D FLAIR SAG""",
    None: """AX T2* GRE | DWI b1000 | ADC | SWI | case_seg | T1 brain mask | T1 synthetic CEMRI | localizer | T2star
        | MR | | BraTS2021_00000 | DSC perfusion | T1 T2 map | Volume""",
}
"""What names and descriptions of data sets, scanners and hospitals mean."""


@pytest.mark.parametrize(("kind", "texts"), SPOKEN.items())
def test_contrast_by_name(kind: str | None, texts: str) -> None:
    """Names of data sets, scanners and hospitals; a T1 with contrast is never a T1."""
    names = [name.strip() for name in texts.split("|")]
    assert {name: Assignment.contrastOf(name) for name in names} == dict.fromkeys(names, kind)


@pytest.mark.parametrize(
    "result", ["sub-01_desc-synthT1c_T1w", "sub-01_t1 synthetic, after warp", "SYNTHETIC CEMRI (D3M)"]
)
def test_results_from_files_are_no_scans(result: str) -> None:
    """A BIDS derivative beside its participant's scans is not taken for the real T1c, nor a step's image for T1."""
    scans = [Named(f"sub-01_{name}") for name in ("T1w", "T2w", "FLAIR")]
    assert list(Assignment.assignInputs([Named(result), *scans], Named.GetName)) == [*scans, None]
    assert Assignment.isSynthetic(Named(result))
    assert not Assignment.isSynthetic(Named("sub-01_ce-gadolinium_T1w"))


def test_one_patients_scans_are_taken_together() -> None:
    """Of two patients the complete one is taken whole; a synthetic result is never an input."""
    nodes = [Named(name) for name in ("A_t1", "A_flair", "B_flair", "B_t1ce", "B_t2", "B_t1")]
    nodes.insert(0, Named("B_t1", D3M_Synthetic="yes"))
    found = Assignment.assignInputs(nodes)
    assert [node.GetName() for node in found] == ["B_t1", "B_t2", "B_flair", "B_t1ce"]
    assert found.t1 is nodes[-1]


def test_hospital_names_without_a_common_stem() -> None:
    """Numbered series are found although their names have nothing in common; nothing is invented."""
    nodes = [Named(name) for name in ("7: AX T1 POST", "3: T2 TSE tra", "5: t2_tirm_dark-fluid", "4: T1 AX", "9: ADC")]
    assert [node.GetName() for node in Assignment.assignInputs(nodes)] == [
        "4: T1 AX", "3: T2 TSE tra", "5: t2_tirm_dark-fluid", "7: AX T1 POST",
    ]  # fmt: skip
    assert tuple(Assignment.assignInputs(nodes[:1])) == (None, None, None, nodes[0])
    assert tuple(Assignment.assignInputs([])) == (None, None, None, None)


def test_dicom_description_decides(host: MRMLHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without a telling name is known by its series; an agent in the header makes it one with contrast."""
    host.openScene()
    values = {("1", "0008,103E"): "AX T1 SE", ("2", "0008,103E"): "AX T1 SE", ("2", "0018,0010"): "GADAVIST"}

    class Database:  # see `Database` below
        def instanceValue(self, uid: str, tag: str) -> str:
            return values.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    nodes = [volume(f"MR {uid}") for uid in "12"]
    for node, uid in zip(nodes, "12", strict=True):
        node.SetAttribute("DICOM.instanceUIDs", uid)
    found = Assignment.assignInputs(nodes)
    assert (found.t1, found.t1c) == (nodes[0], nodes[1])


def volume(name: str) -> object:
    """A small volume node."""
    return slicer.util.addVolumeFromArray(np.arange(24.0, dtype=np.float32).reshape(2, 3, 4), name=name)


class Database:
    """Slicer's DICOM database: patient and examination of instances.

    ctkDICOMDatabase.cpp (CTK 868d56c7), lines 2621 to 2644: what is not there is an empty text.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str] = {}

    def instanceValue(self, uid: str, tag: str) -> str:
        """A tag of an instance; empty if it is not known."""
        return self.values.get((uid, tag), "")


@pytest.fixture
def database(host: MRMLHost, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A DICOM database of the application, and an empty scene."""
    host.openScene()
    found = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", found, raising=False)
    return found


def series(database: Database, name: str, patient: str, study: str) -> object:
    """A volume of this DICOM series."""
    node, uid = volume(name), f"1.2.{len(database.values)}"
    database.values |= {(uid, "0010,0020"): patient, (uid, "0020,000D"): study}
    node.SetAttribute("DICOM.instanceUIDs", f"{uid} {uid}.1")
    return node


def in_tree(node: object, patient: str, study: str) -> object:
    """Put a node under a patient and an examination in the data tree, as Slicer's DICOM plugins do."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def item(uid: str, make: object, parent: int) -> int:
        found = hierarchy.GetItemByUID("DICOM", uid)
        if not found:
            found = make(parent, uid)
            hierarchy.SetItemUID(found, "DICOM", uid)
        return found

    root = item(patient, hierarchy.CreateSubjectItem, hierarchy.GetSceneItemID())
    under = item(study, hierarchy.CreateStudyItem, root)
    own = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(under, node)
    hierarchy.SetItemParent(own, under)
    return node


def test_a_run_is_compared_with_a_real_scan_of_its_examination(host: MRMLHost, tmp_path: Path) -> None:
    """Afterwards as before: no synthetic image passes for a real one, no other examination's without being asked."""
    from slicer_helpers import make_output

    from D3MSynthesisLib import Comparison, Scene
    from D3MSynthesisLib.Engine import SynthesisError

    host.openScene()
    made = make_output(tmp_path / "out", steps=0)

    def scan(name: str, study: str) -> object:
        node = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name=name)
        return in_tree(node, "A", study)

    t1, same, other = scan("t1", "2026"), scan("t1c", "2026"), scan("t1c", "2025")
    nodes, more = (Scene.addRun(host.scene, made.folder, Scene.Frame("t1", made.matrix, t1)) for _ in range(2))
    for reference, mask in ((nodes.cemri, None), (more.cemri, None), (same, nodes.segmentation)):
        with pytest.raises(SynthesisError, match="cannot be what a synthesis made"):
            Comparison.compareRun(nodes, reference, mask)
    t2, flair = scan("t2", "2026"), scan("flair", "2026")
    assert Inputs.readiness(t1, t2, flair, reference=same) is None
    assert "real T1c is a synthetic image" in Inputs.readiness(t1, t2, flair, reference=more.cemri)
    with pytest.raises(SynthesisError, match="another examination"):
        Comparison.compareRun(nodes, other)
    assert nodes.comparison is None
    assert Comparison.compareRun(nodes, other, acrossStudies=True)["ssim_brain"] > 0.9
    assert Comparison.compareRun(nodes, same)["ssim_brain"] > 0.9


ROLES = {"t1": "T1", "t2": "T2", "flair": "FLAIR", "reference": "real T1c", "brainMask": "brain mask",
         "enhancementMask": "given mask"}  # fmt: skip
NAMES = ("5: t1_mprage", "3: t2_tse", "4: flair", "6: t1_mprage +KM")


@pytest.mark.parametrize("where", ["database", "tree"])
def test_scans_of_two_patients_are_never_mixed(database: Database, where: str) -> None:
    """With names as DICOM gives them, of two patients the complete one is taken; gaps of the other stay gaps."""

    def add(name: str, patient: str) -> object:
        if where == "database":
            return series(database, name, patient, f"study of {patient}")
        return in_tree(volume(name), patient, f"study of {patient}")

    first = [add(name, "A") for name in NAMES[:2]]
    second = [add(name, "B") for name in NAMES[2:]]
    found = Assignment.assignInputs([*first, *second])
    assert tuple(found) in ((*first, None, None), (None, None, *second))
    whole = [add(name, "C") for name in NAMES]
    assert tuple(Assignment.assignInputs([*first, *second, *whole])) == tuple(whole)


def test_two_examinations_of_one_patient_are_not_mixed(database: Database) -> None:
    """Last year's FLAIR does not fill this year's gap."""
    now = [series(database, name, "A", "2026") for name in NAMES[:2]]
    before = [series(database, name, "A", "2025") for name in NAMES[2:3]]
    assert tuple(Assignment.assignInputs([*now, *before])) == (*now, None, None)


@pytest.mark.parametrize(
    "names", [("A_t1", "A_flair", "B_t2"), ("A_t1", "B_t2", "B_flair"), ("x t1", "y t2", "y flair")]
)
def test_names_of_two_patients_do_not_fill_each_others_gaps(names: tuple[str, ...]) -> None:
    """Without DICOM the patient's part of the names decides; what is missing is left to the user."""
    found = tuple(Assignment.assignInputs([Named(name) for name in names]))
    stems = {Identity.stemOf(node.GetName()) for node in found if node is not None}
    assert len(stems) == 1
    assert None in found[:3]


def test_nameless_scans_of_two_patients_are_left_to_the_user() -> None:
    """Two T1s that say nothing about a patient: nobody can tell which belongs to the FLAIR."""
    names = ("5: t1_mprage", "3: t2_tse", "5: t1_mprage", "4: flair")
    assert set(Assignment.assignInputs([Named(name) for name in names])) == {None}


def test_what_is_chosen_is_completed_from_its_own_examination(database: Database) -> None:
    """After T1 of B was chosen by hand, B's other scans are found, although A is complete and comes first."""
    first = [series(database, name, "A", "1") for name in NAMES]
    second = [series(database, name, "B", "2") for name in NAMES[:3]]
    nodes = [*first, *second]
    assert tuple(Assignment.assignInputs(nodes, chosen=[second[0], None])) == (*second, None)
    assert set(Assignment.assignInputs(nodes, chosen=[first[0], second[1]])) == {None}


@pytest.mark.parametrize("role", ["t2", "flair", "reference", "brainMask", "enhancementMask"])
@pytest.mark.parametrize("same_patient", [True, False])
def test_mixed_scans_cannot_be_run(database: Database, role: str, same_patient: bool) -> None:
    """A scan of another patient is refused by name; one of another examination only until the user insists."""

    def scan(name: str, patient: str, study: str) -> object:
        made = series(database, name, patient, study)
        if name.endswith("Mask"):
            slicer.util.arrayFromVolume(made)[:] = slicer.util.arrayFromVolume(made) > 0
        return made

    scans = {name: scan(name, "A", "1") for name in ROLES}
    assert Inputs.readiness(**scans) is None
    scans[role] = scan(role, "A" if same_patient else "B", "2")
    reason = Inputs.readiness(**scans)
    assert ("another examination" if same_patient else "another patient") in reason
    assert ROLES[role] in reason
    insisted = Inputs.readiness(**scans, acrossStudies=True)
    assert (insisted is None) == same_patient
    assert Inputs.studiesDiffer(scans.values()) == same_patient


def test_anonymised_patients_are_told_apart_by_examination(database: Database) -> None:
    """Two patients without an ID are two, as in Slicer's data tree; a scan from a file says nothing and is allowed."""
    t1, t2, flair = (series(database, name, "", study) for name, study in (("t1", "1"), ("t2", "2"), ("flair", "1")))
    assert "another patient" in Inputs.readiness(t1, t2, flair)
    assert Inputs.readiness(t1, volume("t2"), flair) is None


def test_provenance_tells_agreement_without_identifiers(database: Database) -> None:
    """Equal identifiers have equal hashes, others do not, and no identifier can be read or found by trying IDs."""
    t1, t2 = series(database, "t1", "0012345", "1.2.840.1"), series(database, "t2", "0012345", "1.2.840.1")
    told = Identity.agreement({"t1": t1, "t2": t2, "flair": volume("flair"), "reference": None})
    assert (told["patient"], told["study"]) == ("unknown", "unknown"), "the FLAIR says nothing"
    told = Identity.agreement({"t1": t1, "t2": t2})
    assert (told["patient"], told["study"]) == ("agree", "agree")
    assert told["hashes"]["t1"] == told["hashes"]["t2"]
    other = Identity.agreement({"t1": t1, "t2": series(database, "x", "0012345", "1.2.840.2")})
    assert (other["patient"], other["study"], other["examinations"]) == ("agree", "differ", 2)
    beside = Identity.agreement({"t1": t1, "t2": t2, "reference": series(database, "x", "0012345", "1.2.840.2")})
    assert (beside["study"], beside["examinations"]) == ("differ", 1), "the image is not made from the real T1c"
    assert other["hashes"]["t1"]["patient"] == other["hashes"]["t2"]["patient"]
    text = str([told, other])
    assert "0012345" not in text
    assert "1.2.840" not in text
    import hashlib

    assert hashlib.sha256(b"0012345").hexdigest()[:16] not in text


def test_a_hardened_copy_is_still_its_patients(database: Database) -> None:
    """Copies with their transforms applied stand beside the scan in the data tree: another patient's are refused."""
    nodes = [in_tree(volume(name), "A", "1") for name in ("t1", "t2")]
    other = in_tree(volume("flair"), "B", "2")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    other.SetAndObserveTransformNodeID(transform.GetID())
    (copy,) = Inputs.hardenedCopies([other])
    assert "another patient" in Inputs.readiness(*nodes, copy)


def test_a_database_that_lacks_the_scans(database: Database) -> None:
    """A scene from another computer: what is known of scans and of what was made of them is the data tree's alone."""
    scan, made = (in_tree(volume(name), "Doe^John", "1.2.3") for name in ("5: t1", "5: t1 synthetic CEMRI"))
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3.4")
    assert Identity.identityOf(scan).patient == Identity.identityOf(made).patient == "Doe^John"
    database.values["1.2.3.4", "0010,0020"] = "4711"
    assert Identity.identityOf(scan).patient == "4711"


def test_panel_can_say_whose_scans_they_are(database: Database) -> None:
    """Patient and examination of the data tree are named; names that speak of two patients are pointed at."""
    nodes = [in_tree(volume(name), "Doe^John", "MR Brain") for name in ("t1", "t2")]
    assert Inputs.whose(nodes) == "Scans of Doe^John, MR Brain."
    assert "do not say" in Inputs.whose([*nodes, volume("flair")])
    assert "different patients" in Inputs.whose([volume("A_t1"), volume("B_t2")])
    assert "Nothing says" in Inputs.whose([volume("t1"), volume("t2")])
    assert Inputs.whose([volume("C_t1"), volume("C_t2")]) == ""
