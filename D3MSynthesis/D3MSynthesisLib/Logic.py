"""The scripting interface: from three volume nodes to the nodes of a result, waiting or in the background."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Frames, Identity, Inputs, Scene
from D3MSynthesisLib.Assignment import assignInputs
from D3MSynthesisLib.Comparison import MADE_FROM, imprint, inputChanged, inputImprint, maskImprint
from D3MSynthesisLib.Counted import countedOf
from D3MSynthesisLib.Engine import Cost, Device, EngineInfo, ModelInfo, ProgressEvent, SynthesisError
from D3MSynthesisLib.Grids import matrixOf
from D3MSynthesisLib.Inputs import maskNotice, readiness, scansNotice, transformNotice
from D3MSynthesisLib.Places import placeOf
from D3MSynthesisLib.Runs import Nodes
from D3MSynthesisLib.Scene import Frame
from D3MSynthesisLib.Texts import _
from D3MSynthesisLib.Traces import newFolder, removeStaleFolders, reportText, withoutNames
from D3MSynthesisLib.Worker import Outcome, Worker

__all__ = ["Cost", "Device", "EngineInfo", "ModelInfo", "Nodes", "ProgressEvent", "SynthesisError", "SynthesisLogic",
           "assignInputs", "readiness", "transformNotice"]  # fmt: skip

SCANS = ("t1", "t2", "flair", "adc", "swi")
SAME_MM = 1e-4
"""T1's voxels have not been moved if its matrix changed by no more."""


@dataclass
class _Run:
    """A run under way."""

    folder: Path
    frame: Frame
    reference: Any
    progress: Callable[[ProgressEvent], None] | None
    finished: Callable[[Nodes | None, SynthesisError | None], None] | None
    names: list[str] = field(default_factory=list)
    """Names of nodes, to be taken out of every report."""
    times: dict[str, int] = field(default_factory=dict)
    """When the voxels of each scan were last changed before the run."""
    copies: list[Any] = field(default_factory=list)
    """Frames of sequences that were copied for the run."""
    nodes: Nodes | None = None
    error: SynthesisError | None = None


def _optionalContrasts(model: str | None) -> tuple[str, ...]:
    """Of "t2" and "flair" those that a model can do without, by its card.

    Raises:
        SynthesisError: the model or its card cannot be used.
    """
    from d3m.errors import D3MError
    from d3m.models import store

    try:
        return store.read_card(store.find_model(model)).optional_contrasts
    except D3MError as error:
        raise SynthesisError(error.message, error.hint, error.kind) from error


class SynthesisLogic:
    """Starts runs of the engine and brings their results into the scene.

    Args:
        scene: The scene; Slicer's own by default.
        qt: See `Worker`: None chooses, False takes a plain subprocess.
        engine: Folder of the package `d3m`, if not the one beside this.
    """

    def __init__(self, scene: Any = None, qt: Any = None, engine: Path | None = None) -> None:
        self._scene = scene
        self._qt = qt
        self._engine = engine
        self._run: _Run | None = None
        self._worker: Worker | None = None
        self._infoWorker: Worker | None = None
        self._log = ""
        self._lastNames: list[str] = []
        self._observed: Any = None
        self._observation: int | None = None
        removeStaleFolders()

    @property
    def scene(self) -> Any:
        """The scene that results are put into."""
        return slicer.mrmlScene if self._scene is None else self._scene

    @property
    def running(self) -> bool:
        """Whether a synthesis is running."""
        return self._run is not None

    @property
    def runningFor(self) -> str:
        """The T1 that the synthesis which is running was started with, and its patient; empty without one."""
        return "" if self._run is None else Identity.withPatient(self._run.frame.name, self._run.frame.t1)

    @property
    def cancelling(self) -> bool:
        """Whether a synthesis was cancelled and its process has not ended yet."""
        return self._worker is not None and self._worker.cancelling

    @property
    def log(self) -> str:
        """What the engine wrote in the run that is running, or in the last one."""
        return self._worker.log if self._worker is not None and self._worker.running else self._log

    def run(
        self,
        t1: Any,
        t2: Any = None,
        flair: Any = None,
        quality: str = "standard",
        wait: bool = True,
        *,
        brainMask: Any = None,
        reference: Any = None,
        referenceMask: Any = None,
        enhancementMask: Any = None,
        further: Mapping[str, Any] | None = None,
        acrossStudies: bool = False,
        model: str | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seed: int = 0,
        device: str = "auto",
        trace: bool = False,
        python: str | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
        finished: Callable[[Nodes | None, SynthesisError | None], None] | None = None,
    ) -> Nodes | None:
        """Synthesise a contrast-enhanced image in new nodes; nothing is overwritten, inputs stay as they are.

        Args:
            t1: Volume nodes. Transforms that they are under count as they are shown; results are put under T1's.
            t2: See `t1`; None: left out, which the model's card must allow; not both T2 and FLAIR.
            flair: See `t2`.
            quality: "preview", "standard" or "best".
            wait: Return when it is done; else return at once and call `finished` later, on the main thread.
            brainMask: Volume or segmentation node, if the scans are not skull-stripped.
            reference: A real T1c, to compare with.
            referenceMask: The real enhancing tumour, volume or segmentation node: false and missed enhancement.
            enhancementMask: Where the picture is to enhance, volume or segmentation node; for models that can.
            further: "adc" and "swi" by name, for models that take them; None: left out.
            acrossStudies: The scans may be of several examinations of one patient.
            model: A model's name or folder; the one that ships by default.
            steps: Reverse steps instead of the quality's.
            samples: Samples instead of the quality's; more than one gives an uncertainty.
            seed: Decides the noise.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            trace: Keep every step, to be replayed.
            python: Interpreter that has torch, instead of Slicer's own.
            progress: Called with every event, on the main thread.
            finished: Called once with nodes or error.

        Returns:
            The nodes; None without `wait`.

        Raises:
            SynthesisError: the request is at fault; with `wait`, anything that ended the run.
        """
        if self.running:
            raise SynthesisError(_("A synthesis is already running."), _("Wait for it, or cancel it."))
        optional = _optionalContrasts(model) if t2 is None or flair is None else ()
        further = {name: node for name, node in (further or {}).items() if node is not None}
        for node in (t1, t2, flair, brainMask, reference, referenceMask, enhancementMask, *further.values()):
            if node is not None and node.GetScene() is None:
                raise SynthesisError(_("{scan} is no longer in the scene.").format(scan=node.GetName() or _("A scan")),
                                     _("Load it again."))  # fmt: skip
        fault = readiness(
            t1, t2, flair, brainMask, reference, referenceMask, acrossStudies, enhancementMask, optional, further
        )
        if fault:
            raise SynthesisError(fault)
        self._stopInfo()
        scans = {"t1": t1, "t2": t2, "flair": flair, **further}
        owners = {"brainMask": brainMask, "enhancementMask": enhancementMask}
        known = {role: Inputs.ownerOf(node) or node for role, node in owners.items() if node is not None}
        known = {role: node for role, node in known.items() if Identity.identityOf(node).known}
        identity = Identity.agreement(scans | {"reference": reference} | known)
        kept = scans | {"reference": reference, "brainMask": brainMask, "referenceMask": referenceMask,
                        "givenMask": enhancementMask}  # fmt: skip
        named = [node.GetName() for node in kept.values() if node is not None]
        masks = {"brain-mask": brainMask, "reference-mask": referenceMask, "enhancement-mask": enhancementMask}
        counted = {name: countedOf(node, name != "brain-mask") for name, node in masks.items() if node is not None}
        whose = scansNotice([*scans.values(), reference])
        place = placeOf(t1)
        copies = Frames.keep(kept)
        scans = {name: kept[name] for name in scans}
        further = {name: kept[name] for name in further}
        t1, t2, flair, reference = (kept[name] for name in ("t1", "t2", "flair", "reference"))
        brainMask, referenceMask, enhancementMask = (kept[f"{name}Mask"] for name in ("brain", "reference", "given"))
        madeFrom = {name: inputImprint(name, kept[name], t1) for name in MADE_FROM if kept.get(name) is not None}
        given = scans | {"brain-mask": brainMask, "reference": reference, "reference-mask": referenceMask,
                         "enhancement-mask": enhancementMask}  # fmt: skip
        folder = newFolder()
        told = (whose, transformNotice(t1, t2, flair, further),
                maskNotice(t1, (brainMask, referenceMask, enhancementMask)))  # fmt: skip
        notices = [text for text in (*told, *(mask.text for mask in counted.values())) if text]
        frame = Frame(
            t1.GetName() or "", matrixOf(t1).copy(), t1, t1.GetParentTransformNode(), t2, flair, identity,
            tuple(notices), brainMask, None if reference is None else imprint(reference, t1), referenceMask,
            None if referenceMask is None else maskImprint(referenceMask, t1), madeFrom, givenMask=enhancementMask,
            place=place, **further,
        )  # fmt: skip
        names = [*named, *(node.GetName() for node in given.values() if node is not None)]
        times = {name: node.GetImageData().GetMTime() for name, node in scans.items() if node is not None}
        run = _Run(folder, frame, reference, progress, finished, names, times, copies)
        self._lastNames = names
        try:
            arguments = ["synthesize"]
            for name, node in given.items():
                if node is not None:  # names of nodes are never names of files
                    path = folder / f"{name}.nrrd"
                    Inputs.writeInput(node, t1, path, counted.get(name))
                    arguments += [f"--{name}", str(path)]
            arguments += ["--out", str(folder / "result"), "--quality", quality, "--seed", str(int(seed)),
                          "--device", device, "--progress", "json", "--parent-pid", str(os.getpid())]  # fmt: skip
            for option, value in (("--model", model), ("--steps", steps), ("--samples", samples)):
                if value is not None:
                    arguments += [option, str(value)]
            if trace:
                arguments.append("--trace")
            self._run = run
            self._worker = Worker(self._onEvent, self._onFinished, False if wait else self._qt)
            self._observeScene()
            self._tell(ProgressEvent("inputs", 0.0, message=_("Starting the engine")))
            self._worker.start(arguments, folder, python, self._engine)
        except OSError as error:
            self._clean(run)
            raise self._cannotStart(error, python) from error
        except BaseException:
            self._clean(run)
            raise
        if not wait:
            return None
        try:
            self._worker.wait()
        finally:
            if self._worker is not None and self._worker.running:  # an interrupt from the keyboard
                self._worker.shutdown()
        if run.error is not None:
            raise run.error
        return run.nodes

    def cancel(self) -> None:
        """Stop the run; `finished` is told within two seconds, and the scene stays as it was."""
        if self._worker is not None:
            self._worker.cancel()

    def poll(self) -> None:
        """Deliver events of a plain subprocess; call it ten times a second where there is no QProcess."""
        for worker in (self._worker, self._infoWorker):
            if worker is not None:
                worker.poll()

    def shutdown(self) -> None:
        """End everything now: the scene, the module or the application is closing."""
        self._stopInfo()
        if self._worker is not None and self._worker.running:
            self._worker.shutdown()

    def requestInfo(
        self,
        finished: Callable[[EngineInfo | None, SynthesisError | None], None],
        wait: bool = False,
        python: str | None = None,
    ) -> None:
        """Ask the engine for devices, models, and what each quality costs here.

        Args:
            finished: Called with the answer or an error, on the main thread.
            wait: Call it before this returns.
            python: Interpreter instead of Slicer's own.
        """
        self._stopInfo()
        folder = newFolder()

        def done(outcome: Outcome) -> None:
            shutil.rmtree(folder, ignore_errors=True)
            self._infoWorker = None
            if outcome.status == "cancelled":
                return
            try:
                if outcome.status != "done":
                    raise ValueError(outcome.message)
                info = EngineInfo.fromJson(outcome.output)
            except ValueError:
                message = outcome.message or _("The engine gave no answer.")
                finished(None, SynthesisError(message, outcome.hint, outcome.kind or "defect", outcome.details))
            else:
                finished(info, None)

        worker = Worker(lambda _: None, done, False if wait else self._qt)
        try:
            worker.start(["info", "--json"], folder, python, self._engine)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            finished(None, self._cannotStart(error, python))
            return
        self._infoWorker = worker
        if wait:
            worker.wait()

    def _stopInfo(self) -> None:
        if self._infoWorker is not None:
            self._infoWorker.shutdown()
            self._infoWorker = None

    def _cannotStart(self, error: OSError, python: str | None) -> SynthesisError:
        if python and not shutil.which(python):
            return SynthesisError(
                _("The Python that was chosen cannot be started."), _("Choose another one, or none."), "machine"
            )
        return SynthesisError(
            _("The synthesis cannot be started."), _("Check that the temporary folder can be written and has space."),
            "machine",
            str(error.strerror or error),
        )  # fmt: skip

    def _tell(self, event: ProgressEvent) -> None:
        if self._run is not None and self._run.progress is not None:
            self._run.progress(event)

    def _onEvent(self, event: dict[str, Any]) -> None:
        def number(name: str, kind: type) -> Any:
            value = event.get(name)
            return kind(value) if isinstance(value, (int, float)) and value == value else None

        fraction = number("fraction", float)
        self._tell(
            ProgressEvent(event["stage"], min(max(fraction or 0.0, 0.0), 1.0), number("step", int),
                          number("steps", int), number("eta_s", float), str(event.get("message") or ""))
        )  # fmt: skip

    def _onFinished(self, outcome: Outcome) -> None:
        run = self._run
        if run is None:
            return
        self._log = outcome.details
        nodes: Nodes | None = None
        error: SynthesisError | None = None
        try:
            if outcome.status == "done":
                self._tell(ProgressEvent("nodes", 0.99, message=_("Showing the result")))
                reference = (
                    run.reference if run.reference is not None and run.reference.GetScene() is self.scene else None
                )
                nodes = Scene.addRun(self.scene, run.folder / "result", self._frameNow(run), reference)
            else:
                error = SynthesisError(outcome.message, outcome.hint, outcome.kind, outcome.details)
        except (ValueError, OSError, MemoryError) as fault:
            import traceback

            error = SynthesisError(
                _("The result cannot be read."), _("Try again, and report it if it happens again."), "defect",
                outcome.details if isinstance(fault, MemoryError) else f"{outcome.details}\n{traceback.format_exc()}",
            )  # fmt: skip
        finally:
            self._clean(run, nodes is None)
        run.nodes, run.error = nodes, error
        if run.finished is not None:
            run.finished(nodes, error)

    def _frameNow(self, run: _Run) -> Frame:
        """Where the result goes: T1 may be under another transform by now, and scans may be gone or others."""
        frame, notices, there = run.frame, list(run.frame.notices), {}
        for name in ("brainMask", "referenceMask", "givenMask", *SCANS):
            node = getattr(frame, name)
            there[name] = node if node is not None and node.GetScene() is self.scene else None
        for name in SCANS:
            node = there[name]
            image = None if there[name] is None else node.GetImageData()
            if there[name] is not None and (image is None or image.GetMTime() != run.times[name]):
                text = _("{scan} was changed during the synthesis; the result is of {scan} as it was.")
                notices.append(text.format(scan=name.upper()))
            elif (
                name != "t1"
                and node is not None
                and there["t1"] is not None
                and inputChanged(name, frame.madeFrom[name], node, there["t1"])
            ):
                text = _("{scan} does not lie by T1 any more as it did when the synthesis was started.")
                notices.append(text.format(scan=name.upper()))
        for name, title in (("brainMask", _("The brain mask")), ("givenMask", _("The given mask"))):
            both = there[name] is not None and there["t1"] is not None
            if both and inputChanged(name, frame.madeFrom[name], there[name], there["t1"]):
                text = _("{mask} was changed or moved during the synthesis; the result is of what it was.")
                notices.append(text.format(mask=title))
        parent = frame.parentTransform if there["t1"] is None else there["t1"].GetParentTransformNode()
        if there["t1"] is not None and abs(matrixOf(there["t1"]) - frame.ijkToRAS).max() > SAME_MM:
            parent = frame.parentTransform  # hardened by now, most likely: the frame of the run is still under it
            notices.append(_("T1 was moved during the synthesis: check that the result lies where T1 is."))
        return replace(frame, parentTransform=parent, notices=tuple(notices), **there)

    def _clean(self, run: _Run, failed: bool = True) -> None:
        self._run = None
        for node in run.copies if failed else ():
            if node.GetScene() is not None:
                node.GetScene().RemoveNode(node)
        self._observeScene(False)
        shutil.rmtree(run.folder, ignore_errors=True)

    def _observeScene(self, active: bool = True) -> None:
        """A scene that is closed ends the run; nothing of it may come into the next one."""
        if self._observation is not None:
            self._observed.RemoveObserver(self._observation)
            self._observed = self._observation = None
        if active:
            self._observed = self.scene
            self._observation = self.scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClose)

    def _onSceneClose(self, caller: Any, event: str) -> None:
        del caller, event
        self.shutdown()

    def report(self, error: SynthesisError | None = None, info: EngineInfo | None = None) -> str:
        """A text to be copied into a report: versions, device, error and log; no patient, no node, no file."""
        return withoutNames(reportText(error, info, self.log), self._lastNames) + "\n"
