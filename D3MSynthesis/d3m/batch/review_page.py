"""The page to look through a run: HTML, style and script in one file without any library.

Rows have one height, and only those in view exist in the document: ten thousand cases scroll as ten do.
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>D3M review (synthetic, research use only)</title>
<style>
:root { --row: 152px; --bg: #14171a; --panel: #1d2226; --line: #343b41; --text: #e6e9eb; --dim: #a3acb3; --mark: #6cb6ff; --bad: #ff8f85; --warn: #ffcc66; --good: #8fd19e; }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; background: var(--bg); color: var(--text); font: 14px/1.4 system-ui, sans-serif; }
header { padding: 10px 16px; background: var(--panel); border-bottom: 1px solid var(--line); }
h1 { font-size: 16px; margin: 0 0 2px; }
.stamp { color: var(--warn); margin: 0 0 8px; font-size: 13px; }
.tools { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
input, select, button { font: inherit; color: inherit; background: var(--bg); border: 1px solid var(--line); border-radius: 4px; padding: 4px 8px; }
input[type=search] { width: 22em; max-width: 100%; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
#count { color: var(--dim); }
.grid { display: grid; grid-template-columns: 150px 548px 84px 110px 84px 84px minmax(220px, 1fr); column-gap: 14px; }
#heads { padding: 6px 16px; background: var(--panel); border-bottom: 1px solid var(--line); align-items: center; }
#heads > div { display: flex; }
#heads button { background: none; border-color: transparent; padding: 2px 4px; margin-left: -4px; color: var(--dim); cursor: pointer; text-align: left; }
#heads button:hover { color: var(--text); }
#heads [aria-sort=ascending] button::after { content: " \\25B2"; color: var(--mark); }
#heads [aria-sort=descending] button::after { content: " \\25BC"; color: var(--mark); }
#heads .pictures { display: grid; grid-template-columns: repeat(4, 132px); text-align: center; color: var(--dim); }
#list { flex: 1; overflow: auto; min-height: 0; }
#space { position: relative; }
.row { position: absolute; left: 0; right: 0; height: var(--row); padding: 9px 16px; border-bottom: 1px solid var(--line); align-items: start; overflow: hidden; contain: strict; }
.row.chosen { background: #243240; box-shadow: inset 3px 0 var(--mark); }
.row .name { font-weight: 600; overflow-wrap: anywhere; }
.row small { display: block; color: var(--dim); font-weight: 400; }
.row img { display: block; width: 528px; height: 132px; background: #000; }
.row .none { width: 528px; height: 132px; display: grid; place-items: center; color: var(--dim); border: 1px dashed var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.done { color: var(--good); } .failed { color: var(--bad); } .missing { color: var(--warn); }
.text { max-height: 134px; overflow: auto; overflow-wrap: anywhere; }
.text p { margin: 0 0 4px; }
.text .reason { color: var(--bad); }
kbd { border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; font-size: 12px; }
footer { padding: 5px 16px; color: var(--dim); background: var(--panel); border-top: 1px solid var(--line); font-size: 12px; }
#empty { padding: 40px; text-align: center; color: var(--dim); }
@media (max-width: 1300px) { .grid { min-width: 1300px; } #wide { overflow-x: auto; } }
#wide { flex: 1; min-height: 0; display: flex; flex-direction: column; }
</style>
</head>
<body>
<header>
<h1>Review of synthetic contrast-enhanced MRI</h1>
<p class="stamp">@STATEMENT@</p>
<div class="tools">
<label>Search <input id="search" type="search" placeholder="participant, notice, reason" autocomplete="off"></label>
<label>Status <select id="status"><option value="">all</option><option>done</option><option>kept</option><option>failed</option><option>missing</option></select></label>
<label><input id="noticed" type="checkbox"> with notices only</label>
<label>Volume from <input id="least" type="number" min="0" step="any" style="width:6em"> to <input id="most" type="number" min="0" step="any" style="width:6em"> ml</label>
<span id="count" role="status" aria-live="polite"></span>
</div>
</header>
<div id="wide">
<div id="heads" class="grid" role="row">
<div role="columnheader"><button type="button" data-key="0">Participant</button></div>
<div class="pictures" role="columnheader"><span>T1</span><span>Synthetic</span><span>Subtraction</span><span>Predicted mask</span></div>
<div role="columnheader"><button type="button" data-key="2">Status</button></div>
<div role="columnheader"><button type="button" data-key="3">Enhancing (ml)</button></div>
<div role="columnheader"><button type="button" data-key="6">Likely (%)</button></div>
<div role="columnheader"><button type="button" data-key="4">Time (s)</button></div>
<div role="columnheader"><button type="button" data-key="5">Notices, failure</button></div>
</div>
<div id="list" role="grid" tabindex="0" aria-label="Cases"><div id="space"></div><div id="empty" hidden>No case fits these filters.</div></div>
</div>
<footer><kbd>&uarr;</kbd> <kbd>&darr;</kbd> move &nbsp; <kbd>Page</kbd> <kbd>Home</kbd> <kbd>End</kbd> jump &nbsp; <kbd>Enter</kbd> opens the slices (the figure, where there are none) &nbsp; <kbd>f</kbd> opens the figure &nbsp; <kbd>/</kbd> search &nbsp; <kbd>Esc</kbd> back to the list &nbsp; &middot; D3M @VERSION@; the patient's right is on the left of each picture</footer>
<noscript><p>This page needs JavaScript; summary.tsv beside it has the same numbers.</p></noscript>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const HEIGHT = 152, MARGIN = 4;
const cases = JSON.parse(document.getElementById("data").textContent).map(
  ([subject, session, status, volume, seconds, notices, reason, hint, thumbnail, figure, estimate, view]) => ({
    subject, session, status, volume, seconds, notices, reason, hint, thumbnail, figure, view, likely: estimate[0], estimate,
    id: "sub-" + subject + (session ? " ses-" + session : ""),
    text: ("sub-" + subject + " ses-" + session + " " + notices.join(" ") + " " + reason + " " + hint).toLowerCase()}));
const at = id => document.getElementById(id);
const list = at("list"), space = at("space"), shown = new Map();
const natural = new Intl.Collator(undefined, {numeric: true});
const keys = {0: c => c.id, 2: c => c.status, 3: c => c.volume, 4: c => c.seconds, 5: c => c.reason ? 1e6 : c.notices.length, 6: c => c.likely};
let order = cases.slice(), chosen = 0, sortKey = "0", upwards = true;

function compare(a, b) {
  const x = keys[sortKey](a), y = keys[sortKey](b);
  if (x === null || y === null) return (x === null) - (y === null);  // what has no value comes last either way
  const c = typeof x === "string" ? natural.compare(x, y) : x - y;
  return (upwards ? c : -c) || natural.compare(a.id, b.id);
}
function refresh() {
  const words = at("search").value.toLowerCase().split(/\\s+/).filter(Boolean), status = at("status").value;
  const noticed = at("noticed").checked, least = parseFloat(at("least").value), most = parseFloat(at("most").value);
  const before = order[chosen];
  order = cases.filter(c => (!status || c.status === status) && (!noticed || c.notices.length)
    && !(c.volume === null ? !isNaN(least) || !isNaN(most) : c.volume < least || c.volume > most)
    && words.every(w => c.text.includes(w))).sort(compare);
  chosen = Math.max(0, order.indexOf(before));
  space.style.height = order.length * HEIGHT + "px";
  list.setAttribute("aria-rowcount", order.length);
  at("empty").hidden = order.length > 0;
  const number = s => cases.reduce((n, c) => n + (c.status === s), 0);
  at("count").textContent = order.length + " of " + cases.length + " cases (" + number("done") + " done, "
    + number("failed") + " failed, " + number("missing") + " missing)";
  for (const head of at("heads").children) {
    const button = head.querySelector("button");
    if (button) head.setAttribute("aria-sort", button.dataset.key !== sortKey ? "none" : upwards ? "ascending" : "descending");
  }
  for (const element of shown.values()) element.remove();
  shown.clear();
  draw();
}
function cell(parent, name, text) {
  const element = document.createElement("div");
  element.className = name; element.setAttribute("role", "gridcell");
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
function build(c, index) {
  const row = document.createElement("div");
  row.className = "row grid"; row.id = "row" + index;
  row.setAttribute("role", "row"); row.setAttribute("aria-rowindex", index + 1);
  row.style.top = index * HEIGHT + "px";
  const name = cell(row, "name", "sub-" + c.subject);
  if (c.session) name.append(Object.assign(document.createElement("small"), {textContent: "ses-" + c.session}));
  const pictures = cell(row, "picture");
  if (c.thumbnail) {
    const link = Object.assign(document.createElement("a"), {href: encodeURI(c.view || c.figure), target: "_blank", rel: "noopener", tabIndex: -1});
    link.append(Object.assign(document.createElement("img"), {loading: "lazy", decoding: "async", width: 528, height: 132,
      src: encodeURI(c.thumbnail), alt: c.id + ": T1, synthetic image, subtraction and predicted mask"}));
    pictures.append(link);
  } else cell(pictures, "none", "no result");
  cell(row, c.status, c.status);
  const volume = cell(row, "number", c.volume === null ? "" : c.volume.toFixed(2));
  if (c.likely !== null) volume.append(Object.assign(document.createElement("small"), {textContent: "whole brain: "
    + c.estimate[1].toFixed(1) + " (" + c.estimate[2].toFixed(1) + " to " + c.estimate[3].toFixed(1) + ")"
    + (c.estimate[2] <= 0 ? ", may be none" : "")}));
  cell(row, "number", c.likely === null ? "" : (100 * c.likely).toFixed(0));
  cell(row, "number", c.seconds === null ? "" : c.seconds.toFixed(0));
  const text = cell(row, "text");
  for (const [kind, words] of [["reason", c.reason], ["hint", c.hint], ...c.notices.map(n => ["notice", n])])
    if (words) text.append(Object.assign(document.createElement("p"), {className: kind, textContent: words}));
  row.addEventListener("click", () => choose(index, false));
  return row;
}
function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - MARGIN);
  const last = Math.min(order.length - 1, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + MARGIN);
  for (const [index, element] of shown) if (index < first || index > last) { element.remove(); shown.delete(index); }
  for (let index = first; index <= last; index++) if (!shown.has(index)) {
    const element = build(order[index], index);
    shown.set(index, element); space.append(element);
  }
  for (const [index, element] of shown) {
    element.classList.toggle("chosen", index === chosen);
    element.setAttribute("aria-selected", index === chosen);
  }
  if (order.length) list.setAttribute("aria-activedescendant", "row" + chosen);
  else list.removeAttribute("aria-activedescendant");
}
function choose(index, scroll = true) {
  if (!order.length) return;
  chosen = Math.min(order.length - 1, Math.max(0, index));
  const top = chosen * HEIGHT;
  if (scroll && top < list.scrollTop) list.scrollTop = top;
  if (scroll && top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  draw();
}
let waiting = false;
list.addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } });
new ResizeObserver(draw).observe(list);
list.addEventListener("keydown", event => {
  const page = Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
  const moves = {ArrowDown: chosen + 1, j: chosen + 1, ArrowUp: chosen - 1, k: chosen - 1, PageDown: chosen + page,
    PageUp: chosen - page, Home: 0, End: order.length - 1};
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) { choose(moves[event.key]); event.preventDefault(); }
  const opened = {Enter: "view", f: "figure"}[event.key], c = order[chosen];
  if (opened && c && c.figure) window.open(encodeURI(c[opened] || c.figure), "_blank", "noopener");
});
document.addEventListener("keydown", event => {
  const typing = event.target.matches("input, select");
  if (event.key === "/" && !typing) { at("search").focus(); event.preventDefault(); }
  if (event.key === "Escape" && typing) { list.focus(); event.preventDefault(); }
});
at("heads").addEventListener("click", event => {
  const key = event.target.dataset && event.target.dataset.key;
  if (key === undefined) return;
  upwards = key === sortKey ? !upwards : key === "0" || key === "2";
  sortKey = key; refresh();
});
for (const id of ["search", "status", "noticed", "least", "most"]) at(id).addEventListener("input", () => { list.scrollTop = 0; refresh(); });
refresh();
list.focus({preventScroll: true});
</script>
</body>
</html>
"""
