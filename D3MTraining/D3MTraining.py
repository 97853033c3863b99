"""D3M training: a module without a window, for training on one's own data from Slicer's Python."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

# The parts of D3MSynthesisLib are imported where they are used: Slicer may load this module before D3MSynthesis.


class D3MTraining(ScriptedLoadableModule):
    """Name, help and thanks; hidden, because there is nothing to click."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("D3M Training")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = ["D3MSynthesis"]
        self.parent.contributors = ["The D3M for 3D Slicer developers"]
        self.parent.hidden = True
        self.parent.widgetRepresentationCreationEnabled = False
        self.parent.helpText = _(
            "Trains a model for the module D3M Synthesis on your own annotated scans: prepare, train, export, "
            "validate. "
            "It has no window: use D3MTraining.D3MTrainingLogic from Python, or the command d3m-training. "
            "For research use only."
        )
        self.parent.acknowledgementText = _(
            "The method is D3M: Deformation-Driven Diffusion Model for Synthesis of Contrast-Enhanced MRI with Brain "
            "Tumors (Pang et al., MICCAI 2025). Please cite it. This is an independent implementation."
        )


class D3MTrainingLogic(ScriptedLoadableModuleLogic):
    """Runs the steps of a training, each in a process of its own that can be cancelled.

    Every step returns when it is done; `progress` is called meanwhile with a `D3MSynthesisLib.Engine.ProgressEvent`,
    and may call `cancel`. A step that does not come to a result raises `D3MSynthesisLib.Engine.SynthesisError`. A
    training that was cancelled resumes where it last saved when it is started again with the same folder. Steps take
    `python`, an interpreter that has the packages, if it is not Slicer's own that shall run them.

        logic = D3MTrainingLogic()
        logic.install()
        logic.prepare(["/data/brats"], "/data/cache")
        logic.train("/data/cache", "/data/run")
        logic.export("/data/run", "/data/mine", texts={"title": "Mine"})
        logic.validate(["/data/brats/validation"], "/data/report", model="/data/mine", writeCard=True)

    Args:
        qt: See `D3MSynthesisLib.Worker.Worker`; a plain subprocess by default, which needs no event loop.
    """

    def __init__(self, qt=False):
        ScriptedLoadableModuleLogic.__init__(self)
        self._qt = qt
        self._worker = None

    @staticmethod
    def install(confirm=None):
        """Install what is missing for training: PyTorch, the engine's packages, and accelerate.

        Args:
            confirm: Is shown what is missing and how large it is, and returns True for yes. Without it, calling this
                is the yes.

        Raises:
            SynthesisError: it was declined or did not work; it can be tried again.
        """
        from D3MSynthesisLib import Install

        engine, training = _requirements()
        Install.ensure(engine, confirm or (lambda _question: True), training)

    def prepare(
        self, data, cache, *, recipe="default", split=None, sizes=None, enhancingLabel=None, skipBad=False, workers=1,
        seed=0, progress=None, python=None,
    ):  # fmt: skip
        """Check every file and put every patient on the model's grid, once.

        Args:
            data: Folders of BraTS-named patients, or .csv manifests.
            cache: Folder for the prepared arrays.
            recipe: "default", "paper" or "step-warp".
            split: A split file, instead of the folders' or a random one.
            sizes: Patients for training, validation and test.
            enhancingLabel: Value of the enhancing tumour: 4 until BraTS 2021, 3 from 2023; found out by default.
            skipBad: Leave out patients with faulty files instead of stopping.
            workers: Processes.
            seed: Decides a random split.

        Returns:
            The cache's folder.
        """
        options = {"cache": _whole(cache), "recipe": recipe, "split": split and _whole(split),
                   "sizes": sizes and ",".join(str(int(size)) for size in sizes), "enhancing-label": enhancingLabel,
                   "skip-bad": skipBad, "workers": workers, "seed": seed}  # fmt: skip
        self._run("prepare", _places(data), options, progress, python)
        return Path(cache)

    def train(
        self, cache, out, *, recipe="default", iterations=None, batch=None, init=None, seed=0, threads=None,
        validateEvery=1000, progress=None, python=None,
    ):  # fmt: skip
        """Train, or go on with a training.

        Args:
            cache: From `prepare`.
            out: Folder for checkpoints and logs.
            recipe: The one that the cache was prepared for.
            iterations: Batches; the recipe's by default.
            batch: Slices in a batch; the recipe's by default.
            init: Folder of a model whose weights the training starts from.
            seed: Decides slices, augmentation and noise.
            threads: Cores to use; all by default.
            validateEvery: Iterations between validations; 0: never.

        Returns:
            The training's folder.
        """
        options = {"cache": _whole(cache), "out": _whole(out), "recipe": recipe, "iterations": iterations,
                   "batch": batch, "init": init and _whole(init), "seed": seed, "threads": threads,
                   "validate-every": validateEvery}  # fmt: skip
        self._run("train", [], options, progress, python)
        return Path(out)

    def export(self, run, out, *, name=None, texts=None, progress=None, python=None):
        """Make a model's folder from a training's best weights; import it in the panel of D3M Synthesis.

        Args:
            run: The training's folder.
            out: Folder of the model.
            name: Of the model; the folder's name by default.
            texts: Texts of the card: title, data, limits, licence, citation, ...

        Returns:
            The model's folder.
        """
        options = {"run": _whole(run), "out": _whole(out), "name": name}
        self._run("export", [], options, progress, python, texts)
        return Path(out)

    def validate(
        self, data, out, *, model=None, quality="standard", steps=None, samples=None, enhancingLabel=None,
        device="auto", writeCard=False, progress=None, python=None,
    ):  # fmt: skip
        """Measure a model on patients with a real T1c and labels.

        Args:
            data: Folders of annotated patients, or .csv manifests.
            out: Folder for tables and pictures; it must not be there yet.
            model: A model's name or folder; the one that ships by default.
            quality: "preview", "standard" or "best".
            steps: Reverse steps instead of the quality's.
            samples: Samples instead of the quality's.
            enhancingLabel: See `prepare`.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            writeCard: Put the table and the mask's best threshold into the model's card.

        Returns:
            The folder of the tables.
        """
        isFolder = model is not None and Path(model).is_dir()
        options = {"out": _whole(out), "model": _whole(model) if isFolder else model, "quality": quality,
                   "steps": steps, "samples": samples, "enhancing-label": enhancingLabel, "device": device,
                   "write-card": writeCard}  # fmt: skip
        self._run("validate", _places(data), options, progress, python)
        return Path(out)

    def cancel(self):
        """End the step that is running, with all its processes, within two seconds."""
        if self._worker is not None:
            self._worker.cancel()

    def _run(self, command, places, options, progress, python, texts=None):
        from D3MSynthesisLib import Install
        from D3MSynthesisLib.Engine import ProgressEvent, SynthesisError
        from D3MSynthesisLib.Traces import newFolder
        from D3MSynthesisLib.Worker import Worker

        if self._worker is not None:
            raise SynthesisError(_("A training step is already running."), _("Wait for it, or cancel it."))
        if not python and Install.incomplete(*_requirements()):
            hint = _("Call D3MTrainingLogic().install() first.")
            raise SynthesisError(_("Packages that training needs are not installed."), hint, "machine")
        folder = newFolder()
        ends = []

        def onEvent(event):
            if progress is not None:
                message = str(event.get("message") or "")
                progress(ProgressEvent(event["stage"], float(event.get("fraction") or 0.0), message=message))

        try:
            if texts is not None:
                options = options | {"texts": folder / "texts.json"}
                options["texts"].write_text(json.dumps(texts), encoding="utf-8")
            arguments = [command, *places]
            for name, value in options.items():
                if value is True:
                    arguments.append(f"--{name}")
                elif value is not None and value is not False:
                    arguments += [f"--{name}", str(value)]
            arguments += ["--progress", "json", "--parent-pid", str(os.getpid())]
            self._worker = Worker(onEvent, ends.append, self._qt)
            self._worker.start(arguments, folder, python, program=Path(__file__).resolve().parent / "d3m_training")
            self._worker.wait()
        except OSError as error:
            hint = _("Check the interpreter, and that the temporary folder can be written and has space.")
            raise SynthesisError(_("The training cannot be started."), hint, "machine", str(error)) from error
        finally:
            worker, self._worker = self._worker, None
            if worker is not None and worker.running:  # an interrupt from the keyboard, or an error in `progress`
                worker.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
        outcome = ends[0]
        if outcome.status == "cancelled":
            raise SynthesisError(_("The training was cancelled."), "", "interrupted", outcome.details)
        if outcome.status != "done":
            raise SynthesisError(outcome.message, outcome.hint, outcome.kind, outcome.details)


def _requirements():
    import D3MSynthesisLib

    engine = Path(D3MSynthesisLib.__file__).resolve().parents[1] / "Resources" / "requirements.txt"
    return engine, Path(__file__).resolve().parent / "Resources" / "training_requirements.txt"


def _whole(path):
    return Path(path).expanduser().absolute()


def _places(data):
    places = [data] if isinstance(data, (str, os.PathLike)) else data
    return [str(_whole(place)) for place in places]


class D3MTrainingTest(ScriptedLoadableModuleTest):
    """A whole training in small, on patients made from the sample case; no network, under two minutes."""

    def runTest(self):
        """Run every test."""
        self.test_fromFilesToModel()
        self.test_cancel()

    def test_fromFilesToModel(self):
        """Three small patients are prepared, trained on, exported and validated; the model's card has the table."""
        from d3m.models.store import read_card

        with _place() as place:
            logic, told = D3MTrainingLogic(), []
            data = _patients(place / "data")
            logic.prepare(data, place / "cache", progress=told.append)
            logic.train(place / "cache", place / "run", iterations=2, batch=2, threads=2, validateEvery=0)
            model = logic.export(place / "run", place / "mine", texts={"title": "Mine"})
            report = logic.validate(
                data / "validation", place / "report", model=model, quality="preview", steps=1, writeCard=True
            )
            self.assertEqual(told[-1].fraction, 1.0)
            self.assertIn("3 patients", told[-1].message)
            self.assertTrue((report / "patients.csv").is_file())
            card = read_card(model)
            self.assertEqual(card.title, "Mine")
            self.assertEqual([patient.id for patient in card.patients], ["P3"])

    def test_cancel(self):
        """A step that is cancelled from its progress says so and leaves no result, and the next one can start."""
        from D3MSynthesisLib.Engine import SynthesisError

        with _place() as place:
            logic = D3MTrainingLogic()
            data = _patients(place / "data")
            with self.assertRaises(SynthesisError) as caught:
                logic.prepare(data, place / "cache", progress=lambda _event: logic.cancel())
            self.assertEqual(caught.exception.kind, "interrupted")
            with self.assertRaises(SynthesisError) as caught:
                logic.train(place / "cache", place / "run", iterations=1)
            self.assertEqual(caught.exception.kind, "input")
            self.assertFalse((place / "run").exists())


@contextlib.contextmanager
def _place():
    with tempfile.TemporaryDirectory(prefix="d3m-training-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _patients(folder, shrink=6):
    """Two patients for training and one for validation: the sample case in small, mirrored, and brighter."""
    import SimpleITK as sitk

    from d3m.models.store import find_sample

    sample = find_sample()
    scans = {"t1": sample.t1, "t2": sample.t2, "flair": sample.flair, "t1ce": sample.t1c, "seg": sample.seg}
    for number, (part, name) in enumerate((("train", "P1"), ("train", "P2"), ("validation", "P3"))):
        patient = folder / part / name
        patient.mkdir(parents=True)
        for kind, path in scans.items():
            image = sitk.ReadImage(str(path))[::shrink, ::shrink, ::shrink]
            if number == 1:
                image = sitk.Flip(image, (True, False, False))
            if number == 2 and kind != "seg":
                image = sitk.Cast(image, sitk.sitkFloat32) * 1.5
            sitk.WriteImage(image, str(patient / f"{name}_{kind}.nii.gz"))
    return folder
