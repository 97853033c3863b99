"""`d3m synthesize`: one patient's scans in, one result out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3m.commands.options import INPUT, OUTPUT, scan, synthesis_command
from d3m.errors import D3MError, Notice
from d3m.options import SynthesisOptions
from d3m.progress import Progress
from d3m.system.console import Reporter, require_torch
from d3m.system.folders import check_output, claim

if TYPE_CHECKING:
    from d3m.volumes.preprocess.case import Source
    from d3m.volumes.types import Case, Volume


@dataclass(frozen=True)
class Request:
    """The files of one patient, and where the result goes; how it is made is in `SynthesisOptions`."""

    scans: tuple[Path | None, Path | None, Path | None]
    study: Path | None
    example: bool
    brain_mask: Path | None
    reference: Path | None
    reference_mask: Path | None
    out: Path
    dicom_out: Path | None
    force: bool


@synthesis_command()
def synthesize(
    reporter: Reporter,
    options: SynthesisOptions,
    *,
    t1: Annotated[Path | None, scan("T1")] = None,
    t2: Annotated[Path | None, scan("T2")] = None,
    flair: Annotated[Path | None, scan("FLAIR")] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            help="Folder of one DICOM study: T1, T2 and FLAIR are selected from the series descriptions; "
            "the choice is printed.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Use the bundled simulated patient.", rich_help_panel=INPUT)
    ] = False,
    brain_mask: Annotated[
        Path | None,
        typer.Option(
            help="Brain mask in T1's space, if the scans are not skull-stripped.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A real T1c, to compare with: writes comparison.json.", rich_help_panel=INPUT, show_default=False
        ),
    ] = None,
    reference_mask: Annotated[
        Path | None,
        typer.Option(
            help="The real enhancing tumour, for comparison.json; without it, it is estimated from the real T1c.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the result; it appears whole or not at all.", rich_help_panel=OUTPUT)
    ],
    dicom_out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a DICOM series marked as synthetic and a DICOM segmentation.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Make a synthetic contrast-enhanced MRI from one patient's T1, T2 and FLAIR.

    The scans must be of one examination. Their grids and orientations may differ: T2 and FLAIR are registered to T1.
    """
    request = Request((t1, t2, flair), dicom, example, brain_mask, reference, reference_mask, out, dicom_out, force)
    _synthesize(reporter, time.monotonic(), request, options)
    reporter.done(out=str(out))
    if not reporter.json:
        typer.echo(f"Figure:  {out / 'figure.png'}")
        typer.echo(f"Volumes: {out / 'cemri.nii.gz'} and others beside it (synthetic, research use only)")
        if dicom_out is not None:
            typer.echo(f"DICOM:   {dicom_out}")


def _sources(request: Request, reporter: Reporter) -> tuple[tuple[Source, Source, Source], Path | None]:
    """Where the three scans are, and the real T1c.

    Raises:
        D3MError: not exactly one of the three ways to give them was used.
    """
    from d3m.models.store import find_sample
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.preprocess.case import resolve
    from d3m.volumes.types import CONTRASTS

    given = [name for name, used in (("--example", request.example), ("--dicom", request.study is not None),
                                     ("scans", any(request.scans))) if used]  # fmt: skip
    if len(given) > 1:
        raise D3MError(
            f"{' and '.join(given)} were given.", "Give either --example, or --dicom, or --t1, --t2 and --flair."
        )
    if request.example:
        found = find_sample()
        return (found.t1, found.t2, found.flair), request.reference or found.t1c
    if request.study is not None:
        reporter.progress(Progress("read", 0.0, message="Reading the study"))
        choice = choose_series(request.study)
        return (choice.t1, choice.t2, choice.flair), request.reference
    missing = [name for name, path in zip(("--t1", "--t2", "--flair"), request.scans, strict=True) if path is None]
    if missing:
        raise D3MError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "Give all three scans, or --dicom with a study's folder, or --example.",
        )
    t1, t2, flair = (
        resolve(path, name) for path, name in zip(request.scans, CONTRASTS, strict=True) if path is not None
    )
    return (t1, t2, flair), request.reference


def _synthesize(reporter: Reporter, started: float, request: Request, options: SynthesisOptions) -> None:
    require_torch()
    from d3m.models.store import find_model, read_card
    from d3m.results.provenance import RESULT
    from d3m.volumes.preprocess.case import read_case, read_raw, read_volume

    sources, reference = _sources(request, reporter)
    chosen = [notice for one in sources if not isinstance(one, Path) for notice in one.notices]
    for notice in chosen:  # before the wait, not after it
        reporter.notice(notice)
    folder = find_model(options.model)
    read_card(folder)
    inputs = [path for one in sources for path in ([one] if isinstance(one, Path) else one.files)]
    others = (request.study, request.brain_mask, request.reference, request.reference_mask, folder)
    inputs += [path for path in others if path is not None]
    check_output(request.out, RESULT, request.force, inputs)
    if request.dicom_out is not None:
        from d3m.results.dicom.write import check_dicom_output

        check_dicom_output(request.dicom_out, request.force, request.out, inputs)
    reporter.progress(Progress("read", 0.0, message="Reading the scans"))
    case = read_case(*sources, request.brain_mask, options.brain)
    real = None if reference is None else read_volume(reference, "t1c")
    real_mask = None if request.reference_mask is None else read_raw(request.reference_mask, "labels")
    with claim(request.out):
        # an older result that a killed run was replacing may have come back
        check_output(request.out, RESULT, request.force, inputs)
        notices = _sample_and_write(reporter, started, request, options, folder, case, sources, real, real_mask)
    reporter.stop()
    for notice in notices:
        if notice not in chosen:
            reporter.notice(notice)


def _sample_and_write(
    reporter: Reporter,
    started: float,
    request: Request,
    options: SynthesisOptions,
    model: Path,
    case: Case,
    sources: tuple[Source, Source, Source],
    real: Volume | None,
    real_mask: Volume | None,
) -> tuple[Notice, ...]:
    reporter.progress(Progress("model", 0.0, message="Loading the model"))
    require_torch()
    from d3m.models.load import load_model
    from d3m.results.files import write_result
    from d3m.synthesis import Synthesis

    result = Synthesis(load_model(model), options).run(case, reporter.progress)
    reporter.progress(Progress("write", 0.98, message="Writing the result"))
    write_result(request.out, result, case, time.monotonic() - started, real, real_mask, replace=request.force)
    if request.dicom_out is not None:
        from d3m.results.dicom.write import content_of, write_dicom

        for notice in write_dicom(request.dicom_out, content_of(result), sources, request.force):
            reporter.notice(notice)
    return result.notices
