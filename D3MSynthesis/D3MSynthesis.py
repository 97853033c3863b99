"""D3M synthesis: the module that Slicer loads."""

import sys
from pathlib import Path

import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

import slicer
from D3MSynthesisLib import SampleCase
from D3MSynthesisLib.Logic import SynthesisLogic

SCANS = ("t1", "t2", "flair", "t1c")


class D3MSynthesis(ScriptedLoadableModule):
    """Name, help and thanks."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("D3M Synthesis")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = []
        self.parent.contributors = ["The D3M for 3D Slicer developers"]
        self.parent.helpText = _(
            "Synthesises a contrast-enhanced T1 image of a brain with tumour from T1, T2 and FLAIR, with the enhancing "
            "tumour and the deformation that made it. The images are synthetic and for research use only."
        )
        self.parent.acknowledgementText = _(
            "The method is D3M: Deformation-Driven Diffusion Model for Synthesis of Contrast-Enhanced MRI with Brain "
            "Tumors (Pang et al., MICCAI 2025). Please cite it. This is an independent implementation."
        )
        self.marks = None
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", self.keepMarks)

    def keepMarks(self):
        """Mark what is synthetic in the views from now on, in scenes that are opened without the panel, too."""
        from D3MSynthesisLib.Marks import Marks

        self.marks = Marks(slicer.mrmlScene)


def sampleFolder() -> Path:
    """Folder of the sample case: beside the installed modules, or in the checkout."""
    here = Path(__file__).resolve().parent
    places = [here / "Resources" / "SampleData", here.parent / "Resources" / "SampleData"]
    return next((place for place in places if (place / "sample_t1.nii.gz").is_file()), places[0])


def ijkToRAS(volumeNode):
    """A volume's matrix as numpy (4, 4)."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def registerSampleData():
    """Offer the sample case in the module Sample Data; it is on this machine already."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="D3M",
        sampleName="D3MSample",
        thumbnailFileName=str(Path(__file__).parent / "Resources" / "Icons" / "D3MSynthesis.png"),
        uris=[(sampleFolder() / f"sample_{scan}.nii.gz").as_uri() for scan in SCANS],
        fileNames=[f"D3M_sample_{scan}.nii.gz" for scan in SCANS],  # in a cache that all modules share
        nodeNames=[f"sample_{scan}" for scan in SCANS],
        checksums=[f"SHA256:{SampleCase.SHA256[f'sample_{scan}']}" for scan in SCANS],
    )


class D3MSynthesisLogic(ScriptedLoadableModuleLogic, SynthesisLogic):
    """The logic, for the panel and for scripts: see `SynthesisLogic.run`."""

    def __init__(self, *arguments, **named):
        ScriptedLoadableModuleLogic.__init__(self)
        SynthesisLogic.__init__(self, *arguments, **named)


class D3MSynthesisWidget(ScriptedLoadableModuleWidget):
    """Brings the panel up and down with the module."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.panel = None

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from D3MSynthesisLib.Widget import Panel

        self.logic = D3MSynthesisLogic()
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/D3MSynthesis.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        requirements = Path(self.resourcePath("requirements.txt"))
        self.panel = Panel(self.logic, slicer.util.childWidgetVariables(uiWidget), requirements, sampleFolder())
        self.panel.enter()

    def onReload(self):
        """The developers' button; what lies in D3MSynthesisLib is read again, too."""
        for name in [name for name in sys.modules if name.split(".")[0] == "D3MSynthesisLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        """Called when the user opens the module."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """Called when the user leaves the module; a run goes on."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        """Called before a reload and when the application closes."""
        if self.panel is not None:
            self.panel.cleanup()
            self.panel = None


class D3MSynthesisTest(ScriptedLoadableModuleTest):
    """Real runs of the default model on the sample case; no network, about a minute on two cores."""

    def setUp(self):
        """Start from an empty scene; without torch, as in the build factory, nothing can run."""
        from D3MSynthesisLib import Install

        requirements = Path(__file__).parent / "Resources" / "requirements.txt"
        missing = (["torch"] if Install.torchMissing() else []) + Install.missing(requirements)
        if missing:
            self.skipTest(f"Packages that the engine needs are not installed: {', '.join(missing)}.")
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test."""
        for test in (self.test_sample, self.test_deformation, self.test_panel):
            self.setUp()
            test()

    def loadSample(self):
        """The sample's T1, T2, FLAIR and T1c."""
        return [slicer.util.loadVolume(str(sampleFolder() / f"sample_{scan}.nii.gz")) for scan in SCANS]

    def test_sample(self):
        """The sample gives a marked result on T1's grid with an enhancing tumour, and the inputs stay as they are."""
        t1, t2, flair, t1c = self.loadSample()
        before = slicer.util.arrayFromVolume(t1).copy()
        nodes = D3MSynthesisLogic().run(t1, t2, flair, quality="preview", reference=t1c)
        self.assertEqual(nodes.cemri.GetImageData().GetDimensions(), t1.GetImageData().GetDimensions())
        self.assertIn("synthetic", nodes.cemri.GetName())
        self.assertEqual(nodes.cemri.GetAttribute("D3M.Synthetic"), "yes")
        self.assertGreater(nodes.enhancingVolumeMl, 0.0)
        self.assertGreater(nodes.comparison["psnr_brain"], nodes.comparison["psnr_brain_t1"])
        self.assertTrue((slicer.util.arrayFromVolume(t1) == before).all())

    def test_deformation(self):
        """Hardening the transform on what the image before the last warp adds to T1 gives what that after it adds."""
        import numpy as np
        from scipy import ndimage

        t1, t2, flair, _t1c = self.loadSample()
        nodes = D3MSynthesisLogic().run(t1, t2, flair, quality="standard", samples=1, trace=True)
        after = nodes.stepAfter.GetNthDataNode(nodes.steps - 1)
        inT1 = np.linalg.inv(ijkToRAS(t1)) @ ijkToRAS(after)
        shape = slicer.util.arrayFromVolume(after).T.shape
        lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        anatomy = ndimage.map_coordinates(
            slicer.util.arrayFromVolume(t1).T.astype(float),
            np.moveaxis(lattice @ inT1[:3, :3].T + inT1[:3, 3], -1, 0),
            order=1,
            mode="nearest",
        )
        moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "moved")
        moved.Copy(nodes.stepBefore.GetNthDataNode(nodes.steps - 1))
        added = slicer.util.arrayFromVolume(moved).T - anatomy
        slicer.util.updateVolumeFromArray(moved, np.ascontiguousarray(added.T))
        moved.SetAndObserveTransformNodeID(nodes.deformation.GetID())
        moved.HardenTransform()
        expected = slicer.util.arrayFromVolume(after).T - anatomy
        toMoved = np.linalg.inv(ijkToRAS(moved)) @ ijkToRAS(after)  # the hardened volume has a lattice of its own
        points = np.moveaxis(lattice @ toMoved[:3, :3].T + toMoved[:3, 3], -1, 0)
        found = ndimage.map_coordinates(slicer.util.arrayFromVolume(moved).T, points, order=1)
        core = np.s_[4:-4, 4:-4, 4:-4]
        difference = np.abs(found - expected)[core]
        # the model sees T1 clipped to its percentiles; where it is, what is added is not known exactly
        seen = (anatomy > 0) & (anatomy < np.percentile(anatomy[anatomy > 0], 99))
        difference = difference[ndimage.binary_erosion(seen, iterations=3)[core]]
        self.assertLess(float(np.percentile(difference, 99.9)), 0.01 * float(np.ptp(anatomy)))

    def test_panel(self):
        """The panel finds the scans by name; its button makes a result, which every choice can be shown of."""
        from D3MSynthesisLib.Parameters import Deformation, Overlay, Picture, Quality

        widget = slicer.modules.d3msynthesis.widgetRepresentation().self()
        widget.enter()
        panel = widget.panel
        self.assertFalse(panel.ui.applyButton.enabled)
        nodes = self.loadSample()
        slicer.app.processEvents()
        p = panel.parameters
        self.assertEqual([p.t1, p.t2, p.flair], nodes[:3])
        self.assertTrue(panel.ui.applyButton.enabled)
        p.quality = Quality.PREVIEW
        panel.ui.applyButton.click()
        self.assertTrue(panel.logic.running, panel.ui.errorLabel.text)
        self.waitFor(lambda: not panel.logic.running)
        self.assertEqual(panel.ui.errorLabel.text, "")
        result = panel.result.nodes
        self.assertIs(result.t1, nodes[0])
        self.assertIn("ml", panel.ui.volumeLabel.text)
        for overlay in Overlay:
            p.overlay = overlay
        for deformation in Deformation:
            p.deformation = deformation
            if deformation is not Deformation.OFF:
                self.assertIs(p.picture, Picture.SAMPLE)
        for name in ("sideBySideButton", "contrastsButton", "comparisonButton", "beforeAfterButton", "fourUpButton"):
            getattr(panel.ui, name).click()
            slicer.app.processEvents()
        p.picture = Picture.CEMRI
        composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
        self.assertEqual(composite.GetBackgroundVolumeID(), result.cemri.GetID())

    def waitFor(self, condition, seconds=600):
        """Let the application work until something is so."""
        import time

        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "it did not happen in time")
            slicer.app.processEvents()
            time.sleep(0.01)
