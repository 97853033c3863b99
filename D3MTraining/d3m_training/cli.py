"""`d3m-training`: prepare, train, validate, export, and make the sample case."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from d3m.errors import D3MError
from d3m.options import SynthesisOptions
from d3m.system.console import Reporter, require_torch, run_program, session
from d3m.system.spellings import TRAINING, program
from d3m.system.text import read_object
from d3m_training.console import MAX_SEED, Mode, ParentOption, ProgressOption, echo, telling
from d3m_training.whole_brain_command import app as whole_brain_app

app = program("Train D3M on your own data: prepare, train, validate, export. For research use only.", TRAINING)

app.add_typer(whole_brain_app, name="whole-brain")


class RecipeName(str, Enum):
    """What a model can be trained as."""

    default = "default"
    paper = "paper"
    step_warp = "step-warp"


class LeftOut(str, Enum):
    """What a model may have to do without."""

    t2 = "t2"
    flair = "flair"


@app.command()
def prepare(
    data: Annotated[list[Path], typer.Argument(help="Folders of BraTS-style patients, or CSV manifests.")],
    cache: Annotated[Path, typer.Option(help="Folder for the prepared arrays; outside the source tree.")],
    recipe: Annotated[RecipeName, typer.Option(help="Recipe: decides grid and normalisation.")] = RecipeName.default,
    split: Annotated[
        Optional[Path], typer.Option(help="Split file to use instead of a new random one.", show_default=False)
    ] = None,
    sizes: Annotated[
        Optional[str],
        typer.Option(help="Patients for train,validation,test, such as 1001,250,219.", show_default=False),
    ] = None,
    enhancing_label: Annotated[
        Optional[int],
        typer.Option(help="Value of the enhancing tumour (4 until BraTS 2021, 3 from 2023).", show_default=False),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out patients with faulty files instead of stopping.")
    ] = False,
    without_t2: Annotated[
        bool, typer.Option("--without-t2", help="Take patients who lack T2 too, for a model that can do without it.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Number of processes.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of a new random split.")] = 0,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Check every file, then put every patient on the model's grid, once.

    Folders named train, validation and test (or a manifest's column split) decide the split; else it is drawn.
    """
    with telling("prepare", progress, parent_pid) as tell:
        from d3m_training.data.preparation import PrepareOptions, prepare_cache

        asked = None
        if sizes is not None:
            try:
                a, b, c = (int(part) for part in sizes.split(","))
            except ValueError as error:
                raise D3MError("--sizes is not three numbers.", "Give for example --sizes 40,7,13.") from error
            asked = (a, b, c)
        options = PrepareOptions(recipe.value, split, asked, enhancing_label, skip_bad, workers, seed, without_t2)
        done = prepare_cache(data, cache, options, tell)
        tell(f"{done} patients are prepared.")


@app.command()
def train(
    cache: Annotated[Path, typer.Option(help="Folder made by `prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs; training resumes from it.")],
    recipe: Annotated[RecipeName, typer.Option(help="Recipe: what the model is trained as.")] = RecipeName.default,
    iterations: Annotated[
        Optional[int], typer.Option(help="Number of batches (default: the recipe's).", show_default=False)
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option(help="Slices per batch (default: the recipe's).", show_default=False)
    ] = None,
    init: Annotated[
        Optional[str],
        typer.Option(help="Name or folder of a model whose weights training starts from.", show_default=False),
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Let the slices see the whole-brain stage's maps (`whole-brain maps`).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of slices, augmentation and noise.")] = 0,
    threads: Annotated[Optional[int], typer.Option(help="Cores to use (default: all).", show_default=False)] = None,
    validate_every: Annotated[int, typer.Option(help="Iterations between validations; 0: never.")] = 1000,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Train a model; started again with the same folder it resumes exactly where it was."""
    with telling("train", progress, parent_pid) as tell:
        require_torch()
        from d3m.models.store import find_model
        from d3m_training.data.preparation import further_of
        from d3m_training.train.runs import TrainOptions, recipe_task, run_training

        options = TrainOptions(cache, out, iterations, batch, seed, threads, validate_every)
        start = None if init is None else find_model(init)
        best = run_training(recipe_task(recipe.value, start, maps, further_of(cache)), options, tell)
        tell(f"Best weights: {best}")


@app.command()
def validate(
    data: Annotated[list[Path], typer.Argument(help="Folders of annotated patients, or CSV manifests.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")],
    model: Annotated[Optional[str], typer.Option(help="A model's name or folder.", show_default=False)] = None,
    quality: Annotated[str, typer.Option(help="preview, standard or best.")] = "standard",
    steps: Annotated[Optional[int], typer.Option(help="Reverse steps.", show_default=False)] = None,
    samples: Annotated[Optional[int], typer.Option(help="Samples that are averaged.", show_default=False)] = None,
    enhancing_label: Annotated[
        Optional[int], typer.Option(help="Value of the enhancing tumour.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write the calibrated threshold and the table into the model's card.")
    ] = False,
    without: Annotated[Optional[LeftOut], typer.Option(help="Leave this contrast out.", show_default=False)] = None,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Measure a model on patients with a real T1c and labels: per patient, and in the mean."""
    with telling("validate", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.evaluate import validate_run

        options = SynthesisOptions(model=model, quality=quality, steps=steps, samples=samples, device=device)
        validate_run(data, out, options, enhancing_label, write_card, tell, without.value if without else None)


@app.command()
def patient_estimate(
    data: Annotated[
        list[Path],
        typer.Argument(help="Folders or CSV manifests of annotated patients that the model was not trained on."),
    ],
    model: Annotated[Optional[str], typer.Option(help="A model's name or folder.", show_default=False)] = None,
    quality: Annotated[str, typer.Option(help="preview, standard or best.")] = "standard",
    enhancing_label: Annotated[
        Optional[int], typer.Option(help="Value of the enhancing tumour.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write calibration and table into the model's card.")
    ] = False,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Calibrate what a result says of the patient: does anything enhance, how many ml, with an interval."""
    with telling("patient-estimate", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.patient_estimate import patient_estimate_run

        options = SynthesisOptions(model=model, quality=quality, device=device)
        patient_estimate_run(data, options, enhancing_label, write_card, tell)


@app.command()
def input_check(
    data: Annotated[list[Path], typer.Argument(help="Folders of patients with T1c, or CSV manifests.")],
    model: Annotated[Optional[str], typer.Option(help="A model's name or folder.", show_default=False)] = None,
    write_card: Annotated[bool, typer.Option("--write-card", help="Write the limits into the model's card.")] = False,
    workers: Annotated[int, typer.Option(help="Number of processes.")] = 2,
) -> None:
    """Calibrate the check that names unusual cases: its limits, false alarms, and what it catches."""
    with session(Reporter("auto")):
        from d3m_training.input_check import input_check_run

        input_check_run(data, model, write_card, workers, echo)


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    name: Annotated[
        Optional[str], typer.Option(help="Name of the model (default: the folder's).", show_default=False)
    ] = None,
    texts: Annotated[
        Optional[Path],
        typer.Option(
            help="JSON with the card's texts: title, data, limits, licence, citation, ...", show_default=False
        ),
    ] = None,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Turn a training's best weights into a model folder: card and weights, ready for `d3m synthesize --model`."""
    with telling("export", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.train.export import export_run

        content = {} if texts is None else read_object(texts, "The file of the card's texts")
        card = export_run(run, out, name or out.name, content)
        tell(f"Exported {card.name} ({card.weights_sha256[:12]}) to {out}")


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder for the five files.")],
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED)] = 11,
) -> None:
    """Make the sample case: a simulated patient with a ring-enhancing glioma."""
    with session(Reporter("auto")):
        from d3m_training.phantom import write_sample

        write_sample(out, seed)
        typer.echo(f"The sample case is in {out}")


def main() -> None:
    """Entry point of the command."""
    run_program(app, "d3m-training", ("--help", "-h"))
