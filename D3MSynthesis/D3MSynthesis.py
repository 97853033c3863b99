"""D3M synthesis: the module that Slicer loads."""

from pathlib import Path

from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

import slicer
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
        slicer.app.connect("startupCompleted()", registerSampleData)


def sampleFolder() -> Path:
    """Folder of the sample case: beside the installed modules, or in the checkout."""
    here = Path(__file__).resolve().parent
    places = [here / "Resources" / "SampleData", here.parent / "Resources" / "SampleData"]
    return next((place for place in places if (place / "sample_t1.nii.gz").is_file()), places[0])


def registerSampleData():
    """Offer the sample case in the module Sample Data; it is on this machine already."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="D3M",
        sampleName="D3MSample",
        thumbnailFileName=str(Path(__file__).parent / "Resources" / "Icons" / "D3MSynthesis.png"),
        uris=[(sampleFolder() / f"sample_{scan}.nii.gz").as_uri() for scan in SCANS],
        fileNames=[f"sample_{scan}.nii.gz" for scan in SCANS],
        nodeNames=[f"sample_{scan}" for scan in SCANS],
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
    """A real run on the sample case with the default model."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test."""
        self.setUp()
        self.test_sample()

    def test_sample(self):
        """The sample gives a result on T1's grid with an enhancing tumour."""
        t1, t2, flair, t1c = (slicer.util.loadVolume(str(sampleFolder() / f"sample_{scan}.nii.gz")) for scan in SCANS)
        nodes = D3MSynthesisLogic().run(t1, t2, flair, quality="preview", reference=t1c)
        self.assertEqual(nodes.cemri.GetImageData().GetDimensions(), t1.GetImageData().GetDimensions())
        self.assertGreater(nodes.enhancingVolumeMl, 0.0)
        self.assertIsNotNone(nodes.comparison)
