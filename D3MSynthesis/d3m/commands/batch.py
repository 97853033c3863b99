"""`d3m batch`: many patients with one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3m.commands.options import OUTPUT, Naming, synthesis_command
from d3m.errors import Notice
from d3m.options import SynthesisOptions
from d3m.system.console import Reporter, require_torch
from d3m.system.streams import scratch_beside


@synthesis_command()
def batch(
    reporter: Reporter,
    options: SynthesisOptions,
    cases: Annotated[
        Path,
        typer.Argument(
            metavar="CASES",
            help="A folder of cases whose files are named as in BraTS (ID_t1.nii.gz, ID_t2.nii.gz, ID_flair.nii.gz), "
            "or a CSV table with the columns t1, t2, flair and optionally id, enhancement_mask, adc, swi.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the results: one folder for each case, and summary.csv.", rich_help_panel=OUTPUT),
    ],
    naming: Annotated[
        Naming,
        typer.Option(
            help="brats: also write each synthetic image as <ID>-t1c.nii.gz into the output folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = Naming.folder,
) -> None:
    """Synthesise many cases with one model. A later run resumes where this one stopped.

    Cases that have a complete result are skipped. A case that fails does not stop the others: summary.csv says what
    was wrong with it, and the exit code is then 2.
    """
    with scratch_beside(out):
        require_torch()
        from d3m.batch.cases import find_cases
        from d3m.batch.local import run_batch
        from d3m.batch.run import check_rows, counts
        from d3m.synthesis import Synthesis

        found = find_cases(cases)
        rows = run_batch(found, out, Synthesis.load(options), naming.value == "brats", reporter.progress)
    for row in rows:
        if row.status == "kept":
            reporter.notice(Notice("case-kept", f"{row.id}: {row.reason} {row.hint}"))
    check_rows(rows, "See summary.csv in the output folder.")
    reporter.done(out=str(out))
    if not reporter.json:
        typer.echo(f"{len(rows)} cases: {counts(rows)}.")
