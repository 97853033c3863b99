"""Whose scan a volume is: patient and examination, by the data tree and Slicer's DICOM database, else by its name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import slicer

PATIENT_ID, STUDY_UID = "0010,0020", "0020,000D"
SYNTHESISED_FROM = ("t1", "t2", "flair", "adc", "swi")
"""Roles of the scans that an image is made from; beside a real T1c it is only looked at."""
_SCAN_WORDS = r"t1|t2|flair|mprage|bravo|spgr|fspgr|vibe|tfe|tirm|dark|fse|tse|dwi|adc|swi"
_PLAIN_WORDS = (
    r"ax|axial|sag|sagittal|cor|coronal|tra|transversal|obl|3d|2d|pre|post|gd|gad|km|ce|the|scan|mr|mri|brain"
    r"|cube|space|vista|fs|fatsat|dixon|propeller|blade|se|gre|wip"
)
"""Words of a sequence's name that say nothing about a patient."""
STAMP = r"(?:19|20)\d\d[01]\d[0-3]\d(?:\d{6})?"
"""A date, and a time where there is one, as converters of DICOM write them."""
SERIES = r"(?:se)?(?:\d{1,3}|1\d0\d)"
"""The number of a series, as in 4, SE4, 004, 1101; it may as well be a patient's."""
BIDS = r"(?i)[_-](?:acq|ce|rec|run|desc|space)-[a-z0-9]+"
"""What a BIDS name says of a scan, and not of the person or visit."""
_NUMBERS = re.compile(rf"(?:se)?\d{{0,3}}|{STAMP}[ _-]+{SERIES}|{SERIES}[ _-]+{STAMP}")
"""What stands before the name of a series and says nothing about a patient."""


@dataclass(frozen=True)
class Identity:
    """What is known of whose scan it is; empty texts where nothing is."""

    patient: str = ""
    """The DICOM patient ID, or the item of the data tree that stands for the patient."""
    study: str = ""
    """The DICOM study instance UID, or the item of the data tree that stands for the examination."""
    title: str = ""
    """Names of both, for a person."""

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return bool(self.patient or self.study)


@dataclass(frozen=True)
class Gone:
    """A scan that is no longer in the scene: what is kept of it answers as its node did."""

    name: str
    identity: Identity
    attributes: Mapping[str, str]

    def GetName(self) -> str:
        return self.name

    def GetAttribute(self, name: str) -> str | None:
        return self.attributes.get(name)

    def GetScene(self) -> None:
        """It is in none."""

    def IsA(self, _kind: str) -> bool:
        """It has no file, voxels or display."""
        return False


def withPatient(name: str, node: Any) -> str:
    """A name with patient and examination of a node behind it: DICOM names the series of all patients alike."""
    title = identityOf(node).title
    return f"{name} ({title})" if title else name


def identityOf(node: Any) -> Identity:
    """Patient and examination of a node; nothing is guessed from its name."""
    if isinstance(node, Gone):
        return node.identity
    if node is None or not hasattr(node, "GetScene"):
        return Identity()
    patient, study, title = _ofTree(node)
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if instances and database is not None:

        def value(tag: str) -> str:
            return (database.instanceValue(instances[0], tag) or "").strip()

        study = value(STUDY_UID) or study
        # without an ID Slicer's data tree takes the examination's (DICOMPlugin.py, addSeriesInSubjectHierarchy); what
        # the database lacks, as of a scene from another computer, the tree alone knows, and of all nodes alike
        patient = value(PATIENT_ID) or patient or (f"Patient-{study}" if study else "")
    return Identity(patient, study, title)


def _ofTree(node: Any) -> tuple[str, str, str]:
    """Patient, examination and their names as the data tree has them."""
    scene = node.GetScene()
    hierarchy = None if scene is None else slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = 0 if hierarchy is None else hierarchy.GetItemByDataNode(node)
    if not item:
        return "", "", ""
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    found, names = [], []
    for level in (constants.GetDICOMLevelPatient(), constants.GetDICOMLevelStudy()):
        ancestor = hierarchy.GetItemAncestorAtLevel(item, level)
        if ancestor:
            names.append(hierarchy.GetItemName(ancestor))
        found.append((hierarchy.GetItemUID(ancestor, constants.GetDICOMUIDName()) or f"item {ancestor}")
                     if ancestor else "")  # fmt: skip
    return found[0], found[1], ", ".join(names)


def birthDateOf(node: Any) -> str:
    """The patient's date of birth as Slicer's DICOM module keeps it in the data tree; empty where it is not known."""
    constants, scene = slicer.vtkMRMLSubjectHierarchyConstants, node.GetScene()
    tree = None if scene is None else slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = 0 if tree is None else tree.GetItemByDataNode(node)
    patient = tree.GetItemAncestorAtLevel(item, constants.GetDICOMLevelPatient()) if item else 0
    if not patient:
        return ""
    return str(tree.GetItemAttribute(patient, constants.GetDICOMPatientBirthDateAttributeName()))


def putBeside(copy: Any, node: Any) -> None:
    """Put a copy of a volume beside it in the data tree, so that it is known whose it is."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    if item:
        parent = hierarchy.GetItemParent(item)
        own = hierarchy.GetItemByDataNode(copy) or hierarchy.CreateItem(parent, copy)
        hierarchy.SetItemParent(own, parent)


def stemOf(name: str) -> str:
    """What a node's name says apart from the scan, in lower case: "BraTS2021_00000_t1ce" gives "brats2021_00000".

    Empty for names that only describe a sequence, such as "5: t1_mprage" or "AX T2 FLAIR".
    """
    text = re.sub(r"^\s*\d+\s*:\s*", "", name)  # the series' number, as Slicer's DICOM module writes it
    text = re.sub(BIDS, "", text)
    text = re.split(rf"(?i)(?<![a-z])(?:{_SCAN_WORDS})(?![a-z])|(?<![a-z])(?:t1|t2)", text, maxsplit=1)[0]
    text = re.sub(rf"(?i)(?<![a-z0-9])(?:{_PLAIN_WORDS})(?![a-z0-9])", " ", text)
    text = re.sub(r"[\s_.:+-]+$", "", text).strip(" _-.").lower()
    return "" if _NUMBERS.fullmatch(text) else text


def groupOf(node: Any) -> tuple[str, str]:
    """What nodes of one examination have in common: ("study", UID), ("patient", ID), ("name", stem), or ("", "")."""
    identity = identityOf(node)
    if identity.study:
        return "study", identity.study
    if identity.patient:
        return "patient", identity.patient
    stem = stemOf(node.GetName() or "")
    return ("name", stem) if stem else ("", "")


def examinationHash(identity: Identity) -> str:
    """What tells an examination from others in files of results; empty where it has no identifier of its own."""
    return "" if not identity.study or identity.study.startswith("item ") else _digest(identity.study)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def agreement(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Whether scans are of one patient and one examination, for the provenance; no identifier can be read from it.

    Args:
        nodes: By role; "t1" must be one of them.

    Returns:
        "patient" and "study": "agree", "differ", or "unknown" where one of the scans has no identifier;
        "examinations": of how many the scans are that the image is made from, as far as it is known; and by role
        hashes, equal where identifiers are. The patient's is made with T1's examination, so that lists of IDs do not
        give it away.
    """
    found = {role: identityOf(node) for role, node in nodes.items() if node is not None}
    salt = found["t1"].study if "t1" in found else ""

    def told(values: list[str]) -> str:
        if len({value for value in values if value}) > 1:
            return "differ"
        return "agree" if values and all(values) else "unknown"

    hashes: dict[str, dict[str, str]] = {}
    for role, identity in found.items():
        entry = {}
        if study := examinationHash(identity):
            entry["study"] = study
        if identity.patient and salt and not identity.patient.startswith("item "):
            entry["patient"] = _digest(f"{salt}\n{identity.patient}")
        hashes[role] = entry
    return {
        "patient": told([identity.patient for identity in found.values()]),
        "study": told([identity.study for identity in found.values()]),
        "examinations": len({one.study for role, one in found.items() if one.study and role in SYNTHESISED_FROM}),
        "hashes": hashes,
    }
