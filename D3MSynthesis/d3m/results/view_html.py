"""The page of a result: HTML, style and script, without its data and without NiiVue."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; connect-src data: blob:; worker-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>D3M result (synthetic, research use only)</title>
<style>
:root { --bg: #000; --panel: #1d2226; --line: #343b41; --text: #e6e9eb; --dim: #a3acb3; --mark: #6cb6ff; --warn: #ffcc66; }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; background: var(--bg); color: var(--text); font: 14px/1.4 system-ui, sans-serif; }
header { padding: 8px 14px; background: var(--panel); border-bottom: 1px solid var(--line); }
.stamp { color: var(--warn); font-weight: 600; }
.stamp + p, .stamp { margin: 0 0 4px; }
.tools { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; }
.tools label { display: inline-flex; gap: 6px; align-items: center; }
input, select, button { font: inherit; color: inherit; background: var(--bg); border: 1px solid var(--line); border-radius: 4px; padding: 3px 8px; }
input[type=range] { padding: 0; width: 9em; accent-color: var(--mark); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
#panels { flex: 1; min-height: 0; display: grid; grid-template-columns: repeat(3, 1fr); grid-auto-rows: minmax(0, 1fr); gap: 2px; background: var(--line); }
#panels.single { grid-template-columns: 1fr; }
#panels.single figure:not(.large) { display: none; }
@media (max-width: 700px) { #panels:not(.single) { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; min-width: 0; min-height: 0; position: relative; background: #000; }
figure.chosen { box-shadow: inset 0 0 0 1px var(--mark); z-index: 1; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; outline: none; }
figcaption { position: absolute; left: 4px; top: 4px; z-index: 1; }
figcaption button { background: rgba(0, 0, 0, .6); border-color: transparent; padding: 1px 6px; cursor: pointer; }
figcaption small { color: var(--warn); }
footer { display: flex; flex-wrap: wrap; gap: 4px 18px; justify-content: space-between; padding: 4px 14px; color: var(--dim); background: var(--panel); border-top: 1px solid var(--line); font-size: 12px; }
#place { font-variant-numeric: tabular-nums; color: var(--text); }
kbd { border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; }
</style>
</head>
<body>
<header>
<p class="stamp" id="statement"></p>
<p id="sentence"></p>
<div class="tools">
<label>Slices <select id="plane"><option value="axial">axial</option><option value="coronal">coronal</option><option value="sagittal">sagittal</option><option value="multi">all three</option></select></label>
<label>Mask <input id="mask" type="range" min="0" max="1" step="0.05" value="0.3"></label>
<label>Window of <select id="which"></select></label>
<label>Level <input id="level" type="range" step="any"></label>
<label>Width <input id="width" type="range" step="any"></label>
<button type="button" id="reset">Reset</button>
</div>
</header>
<main id="panels"></main>
<footer><span id="place" role="status">Loading</span><span>Left button: crosshair. Right button: window. Wheel or <kbd>&uarr;</kbd> <kbd>&darr;</kbd>: slices. A panel's name: that panel alone. The patient's right is on the left. D3M @VERSION@, NiiVue 0.69.0 (BSD-2-Clause)</span></footer>
<noscript><p>This page needs JavaScript. figure.png beside it is a picture of the same result.</p></noscript>
<script>@NIIVUE@</script>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent), at = id => document.getElementById(id);
at("statement").textContent = data.statement;
at("sentence").textContent = data.sentence;
const views = [];
let chosen = 0;

// T1 and the synthetic image have one window: their difference is what counts
const group = name => name === "t1" ? "cemri" : name;
const start = panel => data.panels.find(one => one.name === group(panel.name)).window;

function show(low, high, name) {
  for (const view of views) if (group(view.panel.name) === group(name)) {
    const volume = view.nv.volumes[0];
    volume.cal_min = low; volume.cal_max = Math.max(high, low + 1e-6);
    view.nv.updateGLVolume();
  }
}
function readSliders() {
  const level = parseFloat(at("level").value), width = parseFloat(at("width").value);
  show(level - width / 2, level + width / 2, views[chosen].panel.name);
}
function choose(index) {
  chosen = index;
  views.forEach((view, k) => view.figure.classList.toggle("chosen", k === index));
  at("which").value = index;
  const {panel, nv} = views[index], [least, most] = panel.full, span = Math.max(most - least, 1e-6);
  const {cal_min, cal_max} = nv.volumes[0];
  Object.assign(at("level"), {min: least, max: most, value: (cal_min + cal_max) / 2});
  Object.assign(at("width"), {min: span / 500, max: span, value: cal_max - cal_min});
}
function setPlane() {
  const types = {axial: "sliceTypeAxial", coronal: "sliceTypeCoronal", sagittal: "sliceTypeSagittal", multi: "sliceTypeMultiplanar"};
  for (const {nv} of views) nv.setSliceType(nv[types[at("plane").value]]);
}
function toCentre() {
  for (const {nv} of views) {
    nv.scene.crosshairPos = nv.mm2frac(data.centre);
    nv.setPan2Dxyzmm([0, 0, 0, 1]);
  }
  tell(data.centre);
}
function tell(mm) {
  const [x, y, z] = mm, side = (v, plus, minus) => Math.abs(v).toFixed(0) + " " + (v < 0 ? minus : plus);
  const values = views.map(({panel, nv}) => {
    const volume = nv.volumes[0], voxel = volume.mm2vox(mm), value = volume.getValue(...voxel);
    return panel.title + " " + value.toFixed(Math.abs(value) < 10 ? 2 : 0) + (panel.unit ? " " + panel.unit : "");
  });
  at("place").textContent = [side(x, "R", "L"), side(y, "A", "P"), side(z, "S", "I")].join(", ") + " mm   " + values.join(",  ");
}
async function open() {
  if (!document.createElement("canvas").getContext("webgl2")) {
    at("place").textContent = "This browser has no WebGL 2: the slices cannot be drawn. figure.png shows the result.";
    return;
  }
  const {Niivue, NVImage, DRAG_MODE, SHOW_RENDER} = niivue;
  for (const [index, panel] of data.panels.entries()) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption"), button = document.createElement("button");
    button.type = "button"; button.textContent = panel.title;
    caption.append(button);
    if (["cemri", "subtraction", "displacement"].includes(panel.name)) {
      caption.append(" ", Object.assign(document.createElement("small"), {textContent: "SYNTHETIC, research use only"}));
    }
    canvas.setAttribute("aria-label", panel.title);
    figure.append(canvas, caption);
    at("panels").append(figure);
    at("which").append(new Option(panel.title, index));
    const nv = new Niivue({isRadiologicalConvention: true, dragAndDropEnabled: false, dragMode: DRAG_MODE.windowing,
      multiplanarShowRender: SHOW_RENDER.NEVER, crosshairWidth: 0.3, crosshairColor: [0.42, 0.71, 1, 0.6], backColor: [0, 0, 0, 1], loadingText: "", logLevel: "error",
      isColorbar: panel.name === "displacement"});
    await nv.attachToCanvas(canvas);
    const [low, high] = start(panel);
    nv.addVolume(await NVImage.loadFromBase64({base64: panel.image, name: panel.name + ".nii.gz", colormap: panel.colours, cal_min: low, cal_max: high}));
    nv.addVolume(await NVImage.loadFromBase64({base64: data.mask, name: "mask.nii.gz", colormap: "red", cal_min: 0.5, cal_max: 1,
      opacity: parseFloat(at("mask").value), colorbarVisible: false}));
    const view = {panel, nv, figure};
    views.push(view);
    button.addEventListener("click", () => {
      const alone = at("panels").classList.contains("single");
      for (const other of views) other.figure.classList.remove("large");
      figure.classList.toggle("large", !alone);
      at("panels").classList.toggle("single", !alone);
      choose(index);
    });
    canvas.addEventListener("pointerdown", () => choose(index));
    nv.onIntensityChange = () => {
      const {cal_min, cal_max} = nv.volumes[0];
      show(cal_min, cal_max, panel.name);
      choose(index);
    };
    nv.onLocationChange = location => {
      for (const other of views) if (other !== view) {  // the library links only what the mouse moves
        other.nv.scene.crosshairPos = [...nv.scene.crosshairPos];
        other.nv.drawScene();
      }
      tell(location.mm.slice(0, 3));
    };
  }
  for (const {nv} of views) nv.broadcastTo(views.map(other => other.nv).filter(other => other !== nv), {"2d": true, "3d": true});
  choose(data.panels.findIndex(panel => panel.name === "cemri"));
  setPlane(); toCentre();
  document.body.dataset.ready = "true";
}
at("plane").addEventListener("change", setPlane);
at("which").addEventListener("change", () => choose(Number(at("which").value)));
at("mask").addEventListener("input", () => { for (const {nv} of views) nv.setOpacity(1, parseFloat(at("mask").value)); });
for (const id of ["level", "width"]) at(id).addEventListener("input", readSliders);
at("reset").addEventListener("click", () => {
  for (const view of views) show(...start(view.panel), view.panel.name);
  toCentre(); choose(chosen);
});
document.addEventListener("keydown", event => {
  const step = {ArrowUp: 1, ArrowDown: -1}[event.key];
  if (!step || event.target.matches("input, select") || !views.length) return;
  const {nv} = views[chosen], plane = at("plane").value;
  nv.moveCrosshairInVox(...(plane === "sagittal" ? [step, 0, 0] : plane === "coronal" ? [0, step, 0] : [0, 0, step]));
  event.preventDefault();
});
open().catch(error => { at("place").textContent = "The slices cannot be drawn (" + error.message + "). figure.png shows the result."; });
</script>
</body>
</html>
"""
