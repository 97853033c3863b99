"""`d3m synthesize`: one patient's scans in, one result out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3m.commands.options import INPUT, OUTPUT, if_given, scan, synthesis_command
from d3m.errors import D3MError
from d3m.options import SynthesisOptions
from d3m.progress import Progress
from d3m.system.console import Reporter, load_torch
from d3m.system.streams import scratch_beside

if TYPE_CHECKING:
    from d3m.volumes.io.read import Scan
    from d3m.volumes.types import Volume


FURTHER = " For models that take it."
SAMPLE_ENHANCING = 4
"""Value of the enhancing tumour in the sample's labels."""


@synthesis_command()
def synthesize(
    reporter: Reporter,
    options: SynthesisOptions,
    *,
    t1: Annotated[Path | None, scan("T1")] = None,
    t2: Annotated[Path | None, scan("T2")] = None,
    flair: Annotated[Path | None, scan("FLAIR")] = None,
    adc: Annotated[Path | None, scan("ADC", FURTHER)] = None,
    swi: Annotated[Path | None, scan("SWI", FURTHER)] = None,
    dicom: Annotated[
        Path | None,
        if_given(
            "Folder of one DICOM study: T1, T2 and FLAIR are selected from the series descriptions; "
            "the choice is printed."
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Use the bundled simulated patient.", rich_help_panel=INPUT)
    ] = False,
    brain_mask: Annotated[
        Path | None,
        if_given("Brain mask in T1's space, if the scans are not skull-stripped."),
    ] = None,
    enhancement_mask: Annotated[
        Path | None,
        if_given("The enhancing tumour as you see it, a label map in T1's space: the picture follows it."),
    ] = None,
    reference: Annotated[
        Path | None,
        if_given("A real T1c, to compare with: writes comparison.json."),
    ] = None,
    reference_mask: Annotated[
        Path | None,
        if_given("The real enhancing tumour, for comparison.json; without it, it is estimated from the real T1c."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the result; it appears whole or not at all.", rich_help_panel=OUTPUT)
    ],
    dicom_out: Annotated[
        Path | None,
        if_given("Folder for a DICOM series marked as synthetic and a DICOM segmentation.", OUTPUT),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Make a synthetic contrast-enhanced MRI from one patient's T1, T2 and FLAIR.

    The scans must be of one examination. Their grids and orientations may differ: T2 and FLAIR are registered to T1.
    """
    with scratch_beside(out):
        load_torch()  # first: with little memory it is torch that cannot be loaded
        from d3m import api
        from d3m.models.store import find_sample
        from d3m.volumes.io.dicom.series import Series

        scans = _scans((t1, t2, flair), dicom, example, reporter)
        real_mask: Path | Volume | None = reference_mask
        if example and reference is None:
            reference = find_sample().t1c
            real_mask = reference_mask or _enhancing(find_sample().seg)
        chosen = [notice for one in scans if isinstance(one, Series) for notice in one.notices]
        for notice in chosen:  # before the wait, not after it
            reporter.notice(notice)
        result = api.synthesize(
            t1=scans[0],
            t2=scans[1],
            flair=scans[2],
            adc=adc,
            swi=swi,
            out=out,
            dicom_out=dicom_out,
            brain_mask=brain_mask,
            enhancement_mask=enhancement_mask,
            reference=reference,
            reference_mask=real_mask,
            force=force,
            progress=reporter.progress,
            options=options,
        )
        reporter.stop()
        for notice in result.notices:
            if notice not in chosen:
                reporter.notice(notice)
    reporter.done(out=str(out))
    if not reporter.json:
        if result.patient is not None:
            typer.echo(result.patient.sentence())
        typer.echo(f"Figure:  {out / 'figure.png'}")
        typer.echo(f"Volumes: {out / 'cemri.nii.gz'} and others beside it (synthetic, research use only)")
        if options.page:
            typer.echo(f"Page:    {out / 'view.html'}, for a browser")
        if dicom_out is not None:
            typer.echo(f"DICOM:   {dicom_out}")


def _scans(
    paths: tuple[Path | None, ...], study: Path | None, example: bool, reporter: Reporter
) -> tuple[Scan, Scan | None, Scan | None]:
    """Where T1, T2 and FLAIR are; T2 or FLAIR may be missing.

    Raises:
        D3MError: not exactly one of the three ways to give them was used.
    """
    from d3m.models.store import find_sample
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.io.read import resolve

    given = [name for name, used in (("--example", example), ("--dicom", study is not None),
                                     ("scans", any(paths))) if used]  # fmt: skip
    if len(given) > 1:
        raise D3MError(
            f"{' and '.join(given)} were given.", "Give either --example, or --dicom, or --t1, --t2 and --flair."
        )
    if example:
        found = find_sample()
        return found.t1, found.t2, found.flair
    if study is not None:
        reporter.progress(Progress("read", 0.0, message="Reading the study"))
        choice = choose_series(study)
        return choice.t1, choice.t2, choice.flair
    missing = [name for name, path in zip(("--t1", "--t2", "--flair"), paths, strict=True) if path is None]
    if "--t1" in missing or len(missing) > 1:
        raise D3MError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "Give --t1 with --t2 or --flair or both, or --dicom with a study's folder, or --example.",
        )
    t1, t2, flair = (
        None if path is None else resolve(path, name) for path, name in zip(paths, ("t1", "t2", "flair"), strict=True)
    )
    assert t1 is not None  # it is not among the missing
    return t1, t2, flair


def _enhancing(labels: Path) -> Volume:
    """The enhancing tumour among the sample's labels."""
    from d3m.volumes.io.read import read_raw

    volume = read_raw(labels, "labels")
    return replace(volume, data=(volume.data == SAMPLE_ENHANCING).astype(volume.data.dtype))
