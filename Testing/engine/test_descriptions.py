"""What descriptions say about contrast agent, in the languages and abbreviations of scanners everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid

from conftest import AFFINE
from d3m.volumes.io.dicom.choice import choose_series, kind_of, series_in
from d3m.volumes.io.dicom.descriptions import contrast_of, says_without
from d3m.volumes.io.dicom.headers import find_series
from engine.dicom_helpers import write_series

WITH = """T1 MPRAGE Clariscan|T1 nach Kontrastmittel|T1 tra mdc|T1 CIV|T1 +K|T1 INJ|T1_INJ|t1 post|T1 tra KM|T1C|t1ce
T1 axial con contraste|T1 sag avec gadolinium|T1 GADO|T1 Gadovist 3D|T1+C|T1 +C|T1 SE FS POST GD|AX T1 C+|T1 mdc iv
3D T1 Dotarem|T1 dopo mdc|T1 post-contrast|T1 POSTCONTRAST|T1 MPRAGE KM|T1 mpr nach KM|T1 nach i.v. Gabe|T1 m. KM
T1 mit KM|T1 s kontrastem|T1 po kontrascie|T1 med kontrast|T1 efter kontrast|T1 met contrast|T1 Gd-DTPA|T1 ProHance
T1 VUEWAY|T1 Elucirem|T1 tehosteaine|T1 с контрастом|T1 после КВ|T1 增强|T1 造影後|T1 조영증강|T1 w contrast|T1 w/ c
T1 with c|T1W CE|T1 com contraste|T1 pós contraste|T1 après injection|T1 inject|T1 PC|T1 p.c.|mprage_gd|BRAVO +GD
BRAVO C|T1 MPRAGE MultiHance|T1 kontrastlı|T1 kontrasztanyag|T1Gd|GdT1|T1_KM|T1KM|T1 contr.|t1_mprage_sag_p2_iso_KM
T1 CE-MRI|T1 enhanced|T1post|T1_POST_GAD|T1 +Gd|T1 postgad|T1 SE Magnevist|T1 KONTRAST|t1 se tra +KM|T1 tra nach GD
FSPGR POST|T1 mprage iv contrast|T1 cu contrast|T1 3D CM|T1 c/ contraste|T1 (+)|T1+|T1 (KM)|T1 Gd+|T1 pre/post
T1 MPRAGE Omniscan|T1 Primovist|T1 rehaussé|T1 contrasté|T1 z kontrastem|T1 contrastado
T1 Kontrastmittelgabe|T1 IVC|T1 IVKM|T1 с КУ|T1 s KL|T1 po k.l.|T1 GBCA|T1 10 min p.i.|T1w_postC|T1 nach Gabe|T1 nKM
T1 p. c.|T1 tra with|T1 +G|T1 INY|T1 inyectado|T1 injetado|T1 dopo iniezione|T1 増強|T1 KA jälkeen""".replace(
    "\n", "|"
).split("|")
WITHOUT = """T1 tra nativ|T1 w/o|T1 w/o contrast|T1 without contrast|T1 pre|T1 pre Gd|T1 PRE CONTRAST|T1 non-contrast
T1 ohne KM|T1 o. KM|T1 sans injection|T1 sans gado|T1 sin contraste|T1 senza mdc|T1 zonder contrast|T1 bez kontrastu
T1 uden kontrast|T1 utan kontrast|T1 sem contraste|T1 -C|T1 C-|T1 Gd-|T1 (-)|T1 basal|T1 vor KM|T1 avant injection
T1 平扫|T1 造影前|T1 без контраста|T1 native|T1N|T1 unenhanced|T1 noncontrast|T1 NonContrast|T1 prima mdc|T1 S/C
T1 before contrast|T1 no contrast|T1 nativa|t1_tirm_tra_dark-fluid nativ|T1 natywne|T1 w/o iv contrast|T1 sem CIV
T1 ohne Kontrastmittel|T1 plain|T1 W/O C|T1 wo KM|T1 Kopf nativ
T1 MPRAGE pre-Gadovist|T1 PRE IV|T1 no IV|T1 sine KM|T1 vKM|T1 bez KL|T1 без КУ
T1 sin inyectar""".replace("\n", "|").split("|")
SILENT = """T1|AX T1|T1_MPRAGE_SAG|T1 MPRAGE sag 1mm iso|T1 tra 5 cm|T1 se cor 3 mm|SAG T1 FLAIR|mprage 0.9 iso
T1 VIBE fs|T1 tse med res|T1 fl2d tra|T1 spir cor|T1 scan m1|T1_space_sag|T1 mprage ax mpr
T1 SE high contrast|t1_se_tra_320|T1 SE with fat sat|T1 mit Saettigung
3D BRAVO|T1 SPC iso|T1W_3D_TFE_SAG|Sag CUBE T1|t1_fl3d_cor|AX T1 FSE|T1 axial brain|T1 Schaedel""".replace(
    "\n", "|"
).split("|")


@pytest.mark.parametrize("description", WITH)
def test_with_agent(description: str) -> None:
    """Every way to say that agent was given keeps a series from being the T1."""
    assert contrast_of(description) == "t1c"
    assert not says_without(description)


@pytest.mark.parametrize("description", WITHOUT)
def test_without_agent(description: str) -> None:
    """What is said to be without is the T1, although the word for the agent is there."""
    assert contrast_of(description) == "t1"
    assert says_without(description)


@pytest.mark.parametrize("description", SILENT)
def test_nothing_said(description: str) -> None:
    """Ordinary descriptions are a T1 of which nothing is known."""
    assert contrast_of(description) == "t1"
    assert not says_without(description)


@pytest.mark.parametrize(
    ("description", "kind"),
    [("FLAIR", "flair"), ("T2 tra", "t2"), ("T2 FLAIR", "flair"), ("T2 tse KM", "t2"), ("T2* gre", None),
     ("t2_space", "t2"), ("T2 med", "t2"), ("AX T2 pre", "t2"), ("FLAIR nach KM", "flair"), ("DWI", None)],
)  # fmt: skip
def test_other_contrasts(description: str, kind: str | None) -> None:
    """T2 and FLAIR are what they are, with or without agent."""
    assert contrast_of(description) == kind


def study(folder: Path, *series: tuple[str, int], **tags: Any) -> Path:
    """A study of flat images: (description, slices) each."""
    uid, frame = generate_uid(), generate_uid()
    for number, (text, slices) in enumerate(series, 1):

        def edit(dataset: Any, _: int, text: str = text) -> Any:
            for name, value in tags.items() if "T1" in text and "nativ" not in text else ():
                setattr(dataset, name, value)
            return dataset

        write_series(np.full((8, 8, slices), 5.0), AFFINE, folder / str(number), text, uid, frame, number, edit)
    return folder


def test_native_beats_the_number_of_slices(tmp_path: Path) -> None:
    """A thick series called native is taken, not a thin one of which nothing is known; and it is said."""
    place = study(tmp_path, ("T1 tra nativ", 9), ("T2 tra", 9), ("FLAIR tra", 9), ("T1 MPRAGE xy", 30))
    chosen = choose_series(place)
    assert chosen.t1.description == "T1 tra nativ"
    assert "calls itself native" in chosen.t1.notices[0].message
    (tmp_path / "5").mkdir()
    for number in ("1", "4"):
        for file in (tmp_path / number).iterdir():
            file.rename(tmp_path / "5" / f"{number}{file.name}")
    assert series_in(tmp_path / "5", "t1").description == "T1 tra nativ"


@pytest.mark.parametrize(
    "tags", [{"ContrastBolusAgent": "Unknownium"}, {"ContrastBolusVolume": "7.5"},
             {"ContrastBolusIngredient": "GADOLINIUM"},              {"ContrastBolusTotalDose": "0.1"}]
)  # fmt: skip
def test_any_tag_of_an_agent_counts(tmp_path: Path, tags: dict[str, str]) -> None:
    """The header tells of an injection in several elements; empty words and zero are none."""
    place = study(tmp_path, ("T1 MPRAGE", 9), **tags)
    assert [kind_of(one) for one in find_series(place)] == ["t1c"]
    no = {"ContrastBolusAgent": "keine", "ContrastBolusVolume": "0", "ContrastBolusTotalDose": ""}
    assert [kind_of(one) for one in find_series(study(tmp_path / "no", ("T1 MPRAGE", 9), **no))] == ["t1"]
