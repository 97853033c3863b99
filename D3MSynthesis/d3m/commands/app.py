"""`d3m`: the engine's command line. Each command is a thin call; torch is imported when it is needed."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import d3m
from d3m.commands.bids import bids as bids_command
from d3m.commands.dicom import dicom as dicom_command
from d3m.commands.lists import BidsAppCommand
from d3m.commands.models import models_app
from d3m.commands.options import (
    INPUT,
    OUTPUT,
    Brain,
    BrainOption,
    DeviceOption,
    Mode,
    ModelOption,
    Naming,
    ParentOption,
    ProgressOption,
    Quality,
    QualityOption,
    SamplesOption,
    SeedOption,
    StepsOption,
    TraceOption,
    scan,
)
from d3m.errors import D3MError, Notice
from d3m.progress import Progress
from d3m.system.console import Talk, open_streams, require_torch, session, tell_wrong_usage
from d3m.system.folders import check_output, claim
from d3m.system.text import for_terminal

if TYPE_CHECKING:
    from d3m.volumes.preprocess.case import Source
    from d3m.volumes.types import Case, Volume

app = typer.Typer(
    help="Synthetic contrast-enhanced brain MRI from T1, T2 and FLAIR. Synthetic images, for research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")
app.command("dicom")(dicom_command)
app.command("bids", cls=BidsAppCommand)(bids_command)


@dataclass(frozen=True)
class Request:
    """What a synthesis is asked to do; the sampling is in `settings`, arguments of `Synthesis`."""

    scans: tuple[Path | None, Path | None, Path | None]
    study: Path | None
    sample: bool
    brain_mask: Path | None
    brain: str
    reference: Path | None
    reference_mask: Path | None
    out: Path
    dicom_out: Path | None
    model: str | None
    force: bool
    settings: dict[str, object]


@app.command()
def synthesize(
    *,
    t1: Annotated[Path | None, scan("T1")] = None,
    t2: Annotated[Path | None, scan("T2")] = None,
    flair: Annotated[Path | None, scan("FLAIR")] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            help="Folder of one DICOM study: T1, T2 and FLAIR are chosen by their descriptions, and said.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Use the bundled simulated patient.", rich_help_panel=INPUT)
    ] = False,
    brain_mask: Annotated[
        Path | None,
        typer.Option(
            help="Brain mask in T1's space, if the skull is still on.", rich_help_panel=INPUT, show_default=False
        ),
    ] = None,
    brain: BrainOption = Brain.auto,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A real T1c, to compare with: writes comparison.json.", rich_help_panel=INPUT, show_default=False
        ),
    ] = None,
    reference_mask: Annotated[
        Path | None,
        typer.Option(
            help="The real enhancing tumour, for comparison.json; else it is estimated from the real T1c.",
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
    trace: TraceOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.", rich_help_panel=OUTPUT)] = False,
    model: ModelOption = None,
    quality: QualityOption = Quality.standard,
    steps: StepsOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Make a synthetic contrast-enhanced MRI from one patient's T1, T2 and FLAIR.

    The scans must be of one examination. Their grids and orientations may differ: T2 and FLAIR are registered to T1.
    """
    talk = Talk(progress.value)
    with session(talk, parent_pid):
        started = time.monotonic()
        settings: dict[str, object] = {"device": device, "quality": quality.value, "steps": steps, "samples": samples}
        settings |= {"seed": seed, "trace": trace}
        request = Request(
            (t1, t2, flair),
            dicom,
            sample,
            brain_mask,
            brain.value,
            reference,
            reference_mask,
            out,
            dicom_out,
            model,
            force,
            settings,
        )
        _synthesize(talk, started, request)
        talk.done(out=str(out))
        if progress is not Mode.json:
            typer.echo(f"Figure:  {out / 'figure.png'}")
            typer.echo(f"Volumes: {out / 'cemri.nii.gz'} and others beside it (synthetic, research use only)")
            if dicom_out is not None:
                typer.echo(f"DICOM:   {dicom_out}")


def _sources(request: Request, talk: Talk) -> tuple[tuple[Source, Source, Source], Path | None]:
    """Where the three scans are, and the real T1c.

    Raises:
        D3MError: not exactly one of the three ways to give them was used.
    """
    from d3m.models.store import find_sample
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.preprocess.case import resolve
    from d3m.volumes.types import CONTRASTS

    given = [name for name, used in (("--sample", request.sample), ("--dicom", request.study is not None),
                                     ("scans", any(request.scans))) if used]  # fmt: skip
    if len(given) > 1:
        raise D3MError(
            f"{' and '.join(given)} were given.", "Give either --sample, or --dicom, or --t1, --t2 and --flair."
        )
    if request.sample:
        found = find_sample()
        return (found.t1, found.t2, found.flair), request.reference or found.t1c
    if request.study is not None:
        talk.progress(Progress("read", 0.0, message="Looking at the study"))
        choice = choose_series(request.study)
        return (choice.t1, choice.t2, choice.flair), request.reference
    missing = [name for name, path in zip(("--t1", "--t2", "--flair"), request.scans, strict=True) if path is None]
    if missing:
        raise D3MError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "Give all three scans, or --dicom with a study's folder, or --sample.",
        )
    t1, t2, flair = (
        resolve(path, name) for path, name in zip(request.scans, CONTRASTS, strict=True) if path is not None
    )
    return (t1, t2, flair), request.reference


def _synthesize(talk: Talk, started: float, request: Request) -> None:
    require_torch()
    from d3m.models.store import find_model, read_card
    from d3m.results.provenance import RESULT
    from d3m.volumes.preprocess.case import read_case, read_raw, read_volume

    sources, reference = _sources(request, talk)
    chosen = [notice for one in sources if not isinstance(one, Path) for notice in one.notices]
    for notice in chosen:  # before the wait, not after it
        talk.notice(notice)
    folder = find_model(request.model)
    read_card(folder)
    inputs = [path for one in sources for path in ([one] if isinstance(one, Path) else one.files)]
    others = (request.study, request.brain_mask, request.reference, request.reference_mask, folder)
    inputs += [path for path in others if path is not None]
    check_output(request.out, RESULT, request.force, inputs)
    if request.dicom_out is not None:
        from d3m.results.dicom.write import check_dicom_output

        check_dicom_output(request.dicom_out, request.force, request.out, inputs)
    talk.progress(Progress("read", 0.0, message="Reading the scans"))
    case = read_case(*sources, request.brain_mask, request.brain)
    real = None if reference is None else read_volume(reference, "t1c")
    real_mask = None if request.reference_mask is None else read_raw(request.reference_mask, "labels")
    with claim(request.out):
        # an older result that a killed run was replacing may have come back
        check_output(request.out, RESULT, request.force, inputs)
        notices = _sample_and_write(talk, started, request, folder, case, sources, real, real_mask)
    talk.stop()
    for notice in notices:
        if notice not in chosen:
            talk.notice(notice)


def _sample_and_write(
    talk: Talk,
    started: float,
    request: Request,
    model: Path,
    case: Case,
    sources: tuple[Source, Source, Source],
    real: Volume | None,
    real_mask: Volume | None,
) -> tuple[Notice, ...]:
    talk.progress(Progress("model", 0.0, message="Loading the model"))
    require_torch()
    from d3m.models.load import load_model
    from d3m.results.files import write_result
    from d3m.synthesis import Synthesis

    result = Synthesis(load_model(model), **request.settings).run(case, talk.progress)  # type: ignore[arg-type]
    talk.progress(Progress("write", 0.98, message="Writing the result"))
    write_result(request.out, result, case, time.monotonic() - started, real, real_mask, replace=request.force)
    if request.dicom_out is not None:
        from d3m.results.dicom.write import content_of, write_dicom

        for notice in write_dicom(request.dicom_out, content_of(result), sources, request.force):
            talk.notice(notice)
    return result.notices


@app.command()
def batch(
    cases: Annotated[
        Path,
        typer.Argument(metavar="CASES", help="A folder of BraTS-named cases, or a CSV with columns t1,t2,flair[,id]."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results, one folder a case.", rich_help_panel=OUTPUT)],
    model: ModelOption = None,
    quality: QualityOption = Quality.standard,
    steps: StepsOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = 0,
    trace: TraceOption = False,
    naming: Annotated[
        Naming, typer.Option(help="brats also writes <ID>-t1c.nii.gz into the output folder.", rich_help_panel=OUTPUT)
    ] = Naming.folder,
    device: DeviceOption = "auto",
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Run many cases with one model: goes on where it stopped, and lists what failed.

    Cases whose result is whole are skipped. One bad case stops nothing: summary.csv says what was wrong with it,
    and the exit code is 2 when any case failed.
    """
    talk = Talk(progress.value)
    with session(talk, parent_pid):
        require_torch()
        from d3m.batch.cases import find_cases
        from d3m.batch.local import run_batch
        from d3m.models.load import load_model
        from d3m.models.store import find_model
        from d3m.synthesis import Synthesis

        found = find_cases(cases)
        synthesis = Synthesis(
            load_model(find_model(model)), device, quality.value, steps, samples, seed, trace
        )  # fmt: skip
        rows = run_batch(found, out, synthesis, naming.value == "brats", talk.progress)
        kept = [row for row in rows if row.status == "kept"]
        for row in kept:
            talk.notice(Notice("case-kept", f"{row.id}: {row.reason} {row.mend}"))
        failed = [row for row in rows if row.status == "failed"]
        if failed:
            raise D3MError(
                f"{len(failed)} of {len(rows)} cases failed, {failed[0].id} first: {failed[0].reason}",
                "See summary.csv in the output folder.",
            )
        talk.done(out=str(out))
        if progress is not Mode.json:
            already = sum(row.status == "skipped" for row in rows)
            also = f", {len(kept)} kept since somebody changed them" if kept else ""
            typer.echo(f"{len(rows)} cases, {already} of them already there{also}.")


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show devices, models, and what each quality will cost here."""
    talk = Talk("json" if as_json else "none")
    with session(talk):
        require_torch()
        import torch

        from d3m.models.cost import measure_costs
        from d3m.models.store import list_models, read_card
        from d3m.system.devices import list_devices

        devices, models, costs = list_devices(), [], {}
        for entry in list_models():
            try:
                costs[entry.name] = measure_costs(entry.folder)
                models.append(entry)
            except D3MError as error:  # one damaged model must not hide the others
                talk.notice(Notice("model-unusable", f"The model {entry.name!r} cannot be used: {error.message}"))
        if as_json:
            content = {
                "version": d3m.__version__,
                "torch": torch.__version__,
                "devices": [asdict(device) for device in devices],
                "models": [
                    {
                        "name": entry.name, "removable": entry.removable, "folder": str(entry.folder),
                        "title": read_card(entry.folder).title, "costs": [asdict(cost) for cost in costs[entry.name]],
                    }
                    for entry in models
                ],
            }  # fmt: skip
            typer.echo(json.dumps(content, indent=1))
            return
        typer.echo(f"d3m {d3m.__version__}, torch {torch.__version__}")
        for found in devices:
            memory = "" if found.memory_bytes is None else f", {found.memory_bytes / 2**30:.0f} GiB"
            typer.echo(
                f"  {found.name}: {found.title}{memory}" + ("" if found.usable else f" - not usable: {found.reason}")
            )
        for entry in models:
            typer.echo(for_terminal(f"model {entry.name}: {read_card(entry.folder).title}"))
            for cost in costs[entry.name]:
                typer.echo(
                    f"  {cost.quality:9s} about {cost.seconds:.0f} s and {cost.memory_mb:.0f} MB on {cost.device}"
                )


def _show_version(value: bool) -> None:
    if value:
        typer.echo(d3m.__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Synthetic contrast-enhanced brain MRI from T1, T2 and FLAIR. Synthetic images, for research use only."""
    del version


def main() -> None:
    """Entry point of the command."""
    # Threads that wait for each other in a busy loop are twenty times slower when another program has one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a path's characters must not fail a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="d3m")
    except SystemExit as end:
        tell_wrong_usage(end, sys.argv[1:])
        raise
