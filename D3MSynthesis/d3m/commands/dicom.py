"""`d3m dicom`: images that were saved before, as a DICOM series marked as synthetic and a segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3m.system.console import Reporter, session


def dicom(
    cemri: Annotated[Path, typer.Argument(help="The synthetic image: NIfTI, NRRD or MetaImage.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="The predicted enhancing tumour.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the DICOM files; it appears whole or not at all.")],
    t1: Annotated[
        Path | None,
        typer.Option(help="Folder of T1's DICOM series, whose study it joins.", show_default=False),
    ] = None,
    provenance: Annotated[
        Path | None, typer.Option(help="The provenance.json of the result.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace earlier DICOM files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Write a saved result as DICOM: a series marked as synthetic, and a segmentation."""
    reporter = Reporter("json" if as_json else "none")
    with session(reporter):
        from d3m.results.dicom.write import check_dicom_output, content_of_files, write_dicom

        inputs = [path for path in (cemri, mask, t1, provenance) if path is not None]
        check_dicom_output(out, force, inputs=inputs)
        content = content_of_files(cemri, mask, provenance)
        notices = write_dicom(out, content, [] if t1 is None else [t1], force)
        for notice in notices:
            reporter.notice(notice)
        reporter.done(out=str(out), notices=[notice.message for notice in notices])
