"""What a lab looks through after a run: a table with its data dictionary, and a page; made from disk alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import d3m
from d3m.batch.bids import BidsCase
from d3m.batch.derivatives import FIGURE, STATE, THUMBNAIL, read_row, write_ours
from d3m.batch.derivatives import PAGE as VIEW
from d3m.batch.review_page import PAGE
from d3m.batch.run import estimate_of
from d3m.results.provenance import RESULT, STATEMENT, read_provenance, stated_provenance
from d3m.system.manifest import standing
from d3m.system.text import for_csv, json_in_html

DICTIONARY: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Participant."},
    "session_id": {"Description": "Session; n/a if the data set has none."},
    "status": {
        "Description": "How the case ended.",
        "Levels": {
            "done": "The result is whole.",
            "kept": "The result is there, and it was changed after it was written; see reason.",
            "failed": "There is no result; see reason.",
            "missing": "The case was not run yet, or its result is not whole.",
        },
    },
    "predicted_enhancing_volume": {
        "Description": "Volume of enhancing tumour that the model predicts. Synthetic, research use only.",
        "Units": "ml",
    },
    "enhancement_probability": {
        "Description": "Probability that tumour enhances at all, from the whole brain; n/a without that stage.",
    },
    "estimated_enhancing_volume": {
        "Description": "Volume of enhancing tumour from the whole brain. Synthetic, research use only.",
        "Units": "ml",
    },
    "estimated_volume_low": {
        "Description": "Lower end of its interval; 0: cannot be told from no enhancement.",
        "Units": "ml",
    },
    "estimated_volume_high": {"Description": "Upper end of its interval.", "Units": "ml"},
    "duration": {"Description": "Time that the case took.", "Units": "s"},
    "notices": {"Description": "What was unusual about the scans, and which of several images were taken."},
    "reason": {"Description": "Why the case failed."},
    "hint": {"Description": "What can be done about it."},
    "model": {"Description": "Name of the model."},
    "quality": {"Description": "Quality that was asked for."},
    "steps": {"Description": "Reverse steps of the sampler."},
    "samples": {"Description": "Samples averaged."},
    "seed": {"Description": "Seed of the noise."},
}
"""The columns of `summary.tsv`, in order, as BIDS describes a table in its sidecar."""


@dataclass(frozen=True)
class Entry:
    """One case on the page and in the table."""

    subject: str
    session: str
    status: str
    volume_ml: float | None
    seconds: float | None
    notices: tuple[str, ...]
    reason: str = ""
    hint: str = ""
    settings: tuple[str, ...] = ("", "", "", "", "")
    """model, quality, steps, samples, seed."""
    thumbnail: str = ""
    """Relative to the page; empty if there is none."""
    figure: str = ""
    view: str = ""
    """Of the page with the slices; empty if it was not asked for."""
    estimate: tuple[float | None, ...] = (None, None, None, None)
    """Of the patient: probability of enhancement, ml, and the ends of the interval in ml."""


def collect(cases: Sequence[BidsCase], out: Path) -> list[Entry]:
    """The state of each case, by what is on disk.

    Args:
        cases: From `find_bids_cases`.
        out: Where their derivatives are.
    """
    return [_entry(case, out) for case in cases]


def _entry(case: BidsCase, out: Path) -> Entry:
    row = read_row(out / STATE / "cases" / f"{case.id}.json")
    folder = case.folder(out)
    whole = read_provenance(folder, hashes=False)
    if row is not None and row.status == "failed":
        notices = (row.notices,) if row.notices else ()
        return Entry(case.subject, case.session, "failed", None, row.seconds, notices, row.reason, row.hint)
    status, reason = "done", ""
    if whole is None:
        changed = standing(folder, RESULT)
        whole = stated_provenance(folder) if changed.state == "changed" else None
        status, reason = "kept", changed.reason()
    if whole is None:
        return Entry(case.subject, case.session, "missing", None, None, tuple(n.message for n in case.notices))
    settings = whole.get("settings", {})
    place = folder.relative_to(out).as_posix()
    return Entry(
        case.subject,
        case.session,
        status,
        whole.get("predicted_enhancing_volume_ml"),
        whole.get("seconds", {}).get("all"),
        tuple(notice["message"] for notice in whole.get("notices", ())),
        reason,
        settings=(
            str(whole.get("model", {}).get("name", "")),
            *(str(settings.get(name, "")) for name in ("quality", "steps", "samples", "seed")),
        ),
        thumbnail=f"{place}/{case.id}_{THUMBNAIL}",
        figure=f"{place}/{case.id}_{FIGURE}",
        view=f"{place}/{case.id}_{VIEW}" if f"{case.id}_{VIEW}" in whole.get("files", {}) else "",
        estimate=estimate_of(whole.get("patient_estimate")),
    )


def write_review(entries: Sequence[Entry], out: Path) -> None:
    """Write `summary.tsv`, `summary.json` and `review.html`.

    Raises:
        D3MError: the disk is full or cannot be written.
    """
    write_ours(out / "summary.tsv", table(entries))
    write_ours(out / "summary.json", json.dumps(DICTIONARY, indent=1) + "\n")
    write_ours(out / "review.html", page(entries))


def table(entries: Sequence[Entry]) -> str:
    """The text of `summary.tsv`: n/a where there is nothing, as BIDS wants it."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(DICTIONARY)
    for entry in entries:
        volume = "" if entry.volume_ml is None else f"{entry.volume_ml:.3f}"
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f}"
        session = f"ses-{entry.session}" if entry.session else ""
        estimate = ["" if value is None else f"{value:.3f}" for value in entry.estimate]
        cells = [f"sub-{entry.subject}", session, entry.status, volume, *estimate, seconds, " ".join(entry.notices),
                 entry.reason, entry.hint, *entry.settings]  # fmt: skip
        writer.writerow([" ".join(for_csv(cell).split()) or "n/a" for cell in cells])
    return text.getvalue()


def page(entries: Sequence[Entry]) -> str:
    """The text of `review.html`: one file that asks nothing of a network; pictures lie beside the results."""
    data = [
        [e.subject, e.session, e.status, e.volume_ml, e.seconds, list(e.notices), e.reason, e.hint, e.thumbnail,
         e.figure, e.estimate, e.view]
        for e in entries
    ]  # fmt: skip
    packed = json_in_html(data)
    return PAGE.replace("@STATEMENT@", STATEMENT).replace("@VERSION@", d3m.__version__).replace("@DATA@", packed)
