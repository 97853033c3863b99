"""`d3m follow-up`: two dates of one patient, and what changed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3m.commands.options import INPUT, OUTPUT, synthesis_command
from d3m.errors import D3MError
from d3m.options import SynthesisOptions
from d3m.progress import Progress
from d3m.system.console import Reporter, require_torch
from d3m.system.folders import check_output, claim
from d3m.system.streams import scratch_beside

if TYPE_CHECKING:
    from d3m.synthesis import Synthesis
    from d3m.volumes.types import Case

RESULTS = ("earlier", "later")
"""Folders beside the comparison that hold what was synthesised for it."""


@synthesis_command("trace", "enhancing_label", "page")
def follow_up(
    reporter: Reporter,
    options: SynthesisOptions,
    *,
    before: Annotated[
        Path,
        typer.Option(
            help="The earlier date: a result's folder, a DICOM study's, or one with a BraTS-named case.",
            rich_help_panel=INPUT,
        ),
    ],
    after: Annotated[Path, typer.Option(help="The later date, likewise.", rich_help_panel=INPUT)],
    out: Annotated[Path, typer.Option(help="Folder for the comparison; whole or not at all.", rich_help_panel=OUTPUT)],
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier comparison.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Compare two dates of one patient: the change of predicted enhancement, with a map of what is new or gone.

    What is no result yet is synthesised first, into OUT-earlier and OUT-later. Synthetic images, for research only.
    """
    with scratch_beside(out):
        require_torch()
        from d3m.results.follow_up import FOLLOW_UP, compare_visits, read_visit, write_follow_up

        if before.resolve() == after.resolve():
            raise D3MError("Both dates are the same folder.", "Give the folders of two different dates.")
        check_output(out, FOLLOW_UP, force, (before, after))
        folders = []
        synthesis: Synthesis | None = None
        for place, name in zip((before, after), RESULTS, strict=True):
            made = _result_of(place)
            if made is None:
                synthesis = synthesis or _load(options)
                made = _synthesised(reporter, place, out.with_name(f"{out.name}-{name}"), name, synthesis)
            folders.append(made)
        with claim(out):
            reporter.progress(Progress("write", 0.97, message="Comparing the two dates"))
            one, other = (read_visit(folder, name) for folder, name in zip(folders, RESULTS, strict=True))
            change = compare_visits(one, other)
            write_follow_up(out, one, other, change, force)
    for notice in change.notices:
        reporter.notice(notice)
    reporter.done(out=str(out))
    if not reporter.json:
        typer.echo(change.sentence())
        typer.echo(f"Figure:  {out / 'figure.png'}")


def _result_of(place: Path) -> Path | None:
    """The folder, if it is a result already."""
    from d3m.results.provenance import stated_provenance

    return place if stated_provenance(place) is not None else None


def _load(options: SynthesisOptions) -> Synthesis:
    """The model, with at least two samples: one alone does not say how much it varies."""
    from d3m.synthesis import Synthesis

    synthesis = Synthesis.load(options)
    if synthesis.sampling.samples < 2:
        synthesis = Synthesis(synthesis.model, replace(options, samples=2))
    return synthesis


def _synthesised(reporter: Reporter, place: Path, folder: Path, name: str, synthesis: Synthesis) -> Path:
    from d3m.results.files import write_result
    from d3m.results.provenance import RESULT

    started = time.monotonic()
    check_output(folder, RESULT, force=True, inputs=(place,))
    reporter.progress(Progress("read", 0.0, message=f"Reading the {name} date"))
    case = _case(place, synthesis.options.brain)
    with claim(folder):
        result = synthesis.run(case, reporter.progress)
        write_result(folder, result, case, time.monotonic() - started)
    for notice in result.notices:
        reporter.notice(notice)
    return folder


def _case(place: Path, extractor: str) -> Case:
    """The scans of a folder: BraTS-named files of one case, else a DICOM study."""
    from d3m.batch.cases import find_cases
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.io.naming import assign
    from d3m.volumes.preprocess.case import read_case

    if not place.is_dir():
        raise D3MError(
            f"{place} is not a folder.", "Give a result's folder, a DICOM study's, or one with a case's scans."
        )
    names = [path.name for path in place.iterdir() if path.is_file()]
    if not assign(names) and not any(name.endswith((".nii", ".nii.gz")) for name in names):
        chosen = choose_series(place)
        return read_case(chosen.t1, chosen.t2, chosen.flair, extractor=extractor)
    cases = find_cases(place)
    if len(cases) != 1 or cases[0].t1 is None:
        raise D3MError(f"{place} holds {len(cases)} cases, or one without T1.", "Give a folder with one case.")
    if cases[0].problem:
        raise D3MError(cases[0].problem, "Leave one of them in the folder.")
    return read_case(cases[0].t1, cases[0].t2, cases[0].flair, extractor=extractor)
