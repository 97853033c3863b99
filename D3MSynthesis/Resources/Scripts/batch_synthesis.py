"""Synthetic contrast-enhanced images for a folder of cases, without a window.

With Slicer, which brings the Python and the packages that its module has installed:

    Slicer --no-splash --no-main-window --python-script batch_synthesis.py CASES OUT [options]

or with any Python 3.10 or later that has the packages of the engine:

    python batch_synthesis.py CASES OUT [options]

CASES is a folder of BraTS-named cases (one folder a patient), or a .csv table with columns t1, t2, flair and, if
wanted, id; one of T2 and FLAIR may be missing if the model's card allows it. OUT gets one folder a case, and
summary.csv, which says of every case whether it is done, was there already, or failed and why. A case that fails does
not stop the others. Started again with the same arguments, the batch resumes where it stopped. All further options are
those of `d3m batch`, such as --quality preview, --device cpu, --trace.

Exit code: 0, all cases are done; 2, a case failed or the request is at fault; 3, this machine cannot do it;
130, interrupted; 1, a defect.

The images are synthetic. For research only, not for the care of a patient.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from D3MSynthesisLib.Worker import Outcome, Worker

EXIT_CODES = {"input": 2, "machine": 3, "interrupted": 130}


def runBatch(cases: Path, out: Path, options: list[str], python: str | None = None, engine: Path | None = None) -> int:
    """Run `d3m batch` in a process of its own; what it says goes to the console.

    Args:
        cases: A folder or a .csv table.
        out: Where results go.
        options: Further options of `d3m batch`.
        python: Interpreter instead of Slicer's own, or of this one.
        engine: Folder of the package `d3m`, if not the one beside this.

    Returns:
        The exit code.
    """
    ends: list[Outcome] = []
    said: list[str] = []

    def onEvent(event: dict[str, Any]) -> None:
        message = str(event.get("message") or event["stage"])
        if [message] != said[-1:]:
            said.append(message)
            fraction = event.get("fraction")
            share = f"{fraction:4.0%} " if isinstance(fraction, (int, float)) and 0 <= fraction <= 1 else ""
            print(f"{share}{message}", flush=True)

    worker = Worker(onEvent, ends.append, qt=False)
    # The child works in a folder of its own, which it removes if this process dies; hence whole paths.
    arguments = ["batch", str(cases.absolute()), "--out", str(out.absolute()), *options, "--progress", "json"]
    with tempfile.TemporaryDirectory(prefix="d3m-batch-", ignore_cleanup_errors=True) as folder:
        try:
            worker.start(arguments, Path(folder), python, engine)
            worker.wait()
        except OSError as error:
            print(f"The batch cannot be started: {error.strerror or error}.", file=sys.stderr)
            return EXIT_CODES["machine"]
        except KeyboardInterrupt:
            worker.shutdown()
    outcome = ends[0] if ends else Outcome("cancelled", "interrupted", "The batch was interrupted.")
    if outcome.status == "done":
        print(f"Done. See {out / 'summary.csv'}.")
        return 0
    if outcome.kind == "defect" and outcome.details:
        print(outcome.details, file=sys.stderr)
    print(f"{outcome.message} {outcome.hint}".strip(), file=sys.stderr)
    if outcome.status == "cancelled":
        print("Start it again with the same arguments to resume.", file=sys.stderr)
    return EXIT_CODES.get(outcome.kind, 1)


def main(arguments: list[str]) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        prog="batch_synthesis.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, metavar="CASES", help="folder of cases, or a .csv table")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--python", metavar="FILE", help="interpreter that has torch, instead of Slicer's own")
    try:
        chosen, options = parser.parse_known_args(arguments)
    except SystemExit as end:  # help, or a wrong command line; inside Slicer this must not leave a process behind
        return int(end.code or 0)
    return runBatch(chosen.cases, chosen.out, options, chosen.python)


def leave(code: int) -> None:
    """End Slicer, or this Python, with this exit code."""
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "app"):
        slicer.util.exit(code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
