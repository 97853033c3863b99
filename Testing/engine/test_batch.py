"""Many cases in one run: one bad case stops nothing, whole results are skipped, others are made again."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import TinyCase, write_case
from d3m.batch.cases import find_cases, safe_id
from d3m.batch.local import Row, run_batch
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.progress import Progress, ignore_progress
from d3m.synthesis import Synthesis
from d3m.system.own_files import LIST
from engine.command_helpers import d3m_command, start


@pytest.fixture(scope="module")
def synthesis(tiny_model: Path) -> Synthesis:
    """The tiny model, loaded once."""
    return Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))


def touch(folder: Path, *names: str) -> Path:
    """Empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def run(cases: Path, out: Path, synthesis: Synthesis, brats: bool = False) -> dict[str, Row]:
    """Run a batch; rows by id."""
    return {row.id: row for row in run_batch(find_cases(cases), out, synthesis, brats, ignore_progress)}


def hidden(folder: Path) -> list[str]:
    """What is left over beside the results."""
    return [p.name for p in folder.iterdir() if p.name.startswith(".") and p.name not in (".d3m-batch.lock", LIST)]


@pytest.mark.parametrize(
    "names",
    [
        ("x_t1.nii.gz", "x_t1ce.nii.gz", "x_t2.nii.gz", "x_flair.nii.gz", "x_seg.nii.gz"),
        ("x-t1n.nii.gz", "x-t1c.nii.gz", "x-t2w.nii.gz", "x-t2f.nii.gz", "x-seg.nii.gz"),
        ("x_T1.nii", "x_T1Gd.nii", "x_T2.nii", "x_FLAIR.nii"),
    ],
)
def test_names_are_compared_whole(names: tuple[str, ...], tmp_path: Path) -> None:
    """The contrast-enhanced scan is never taken for T1, whatever the style, flat or in a folder of its own."""
    touch(tmp_path / "nested" / "x", *names)
    touch(tmp_path / "flat", *names)
    for place in (tmp_path / "nested", tmp_path / "flat"):
        (case,) = find_cases(place)
        t2, flair = (names[2], names[3])
        assert case.id == "x"
        assert [p.name for p in (case.t1, case.t2, case.flair) if p] == [names[0], t2, flair]


def test_results_and_lone_files_are_no_cases(tmp_path: Path) -> None:
    """T1c files that a batch wrote, and segmentations, do not become cases without scans."""
    touch(tmp_path / "x", "x_t1.nii.gz", "x_t2.nii.gz", "x_flair.nii.gz")
    touch(tmp_path / "out", "x-t1c.nii.gz", "y_seg.nii.gz", "summary.csv")
    assert [case.id for case in find_cases(tmp_path)] == ["x"]


def test_table_of_cases(tmp_path: Path) -> None:
    """Relative paths are relative to the table; ids may be left out; a byte order mark and blanks do not matter."""
    table = tmp_path / "cases.csv"
    lines = ("\ufefft1, t2, flair, id", "a/1.nii, 2.nii, /abs/3.nii, Pätient 山田", "4.nii,,6.nii,")
    table.write_text("\n".join(lines), encoding="utf-8")
    first, second = find_cases(table)
    assert (first.id, first.t1, first.flair) == ("Pätient 山田", tmp_path / "a/1.nii", Path("/abs/3.nii"))
    assert (second.id, second.t2) == ("case0002", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("t1,t2\na,b\n", "no column flair"),
        ("", "no rows"),
        ("t1,t2,flair\n", "no rows"),
        ("t1,t2,flair,id\na,b,c,X\nd,e,f,x\n", "Two cases"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_tables_that_are_no_tables(content: str | bytes, message: str, tmp_path: Path) -> None:
    """Refused with what is missing; ids that a file system may not tell apart count as equal."""
    table = tmp_path / "cases.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(D3MError, match=message):
        find_cases(table)


def test_folder_without_cases_names_what_was_found(tmp_path: Path) -> None:
    """An unknown style is refused with the names found; a missing place is refused."""
    touch(tmp_path / "a", "scan_post.nii.gz")
    with pytest.raises(D3MError, match=r"scan_post\.nii\.gz"):
        find_cases(tmp_path)
    with pytest.raises(D3MError, match="does not exist"):
        find_cases(tmp_path / "nosuch")


@pytest.mark.parametrize("text", ["../../etc/x", "a/b", "CON:", " . ", "", "x" * 500, "a\0b", "..", "C:\\x"])
def test_ids_cannot_leave_the_folder(text: str) -> None:
    """Whatever the table says, an id is the name of one folder."""
    name = safe_id(text)
    assert name not in ("", ".", "..")
    assert len(name) <= 100
    assert not set(name) & set('/\\:\0<>"|?*')


@pytest.mark.parametrize("order", ["abcd", "dcba"])
def test_one_bad_case_stops_nothing(order: str, tmp_path: Path, synthesis: Synthesis) -> None:
    """A cut file and a missing one: two results, two reasons, in any order of the cases."""
    for name in "abcd":
        write_case(tmp_path / "in" / name, name)
    cut = tmp_path / "in/b/b_flair.nii.gz"
    cut.write_bytes(cut.read_bytes()[:5000])
    (tmp_path / "in/c/c_t2.nii.gz").unlink()
    cases = sorted(find_cases(tmp_path / "in"), key=lambda case: order.index(case.id))
    rows = {row.id: row for row in run_batch(cases, tmp_path / "out", synthesis, False, ignore_progress)}
    assert {name: row.status for name, row in rows.items()} == {"a": "done", "b": "failed", "c": "failed", "d": "done"}
    assert "FLAIR" in rows["b"].reason
    assert "T2 is missing" in rows["c"].reason
    with (tmp_path / "out/summary.csv").open(encoding="utf-8") as f:
        table = list(csv.DictReader(f))
    columns = ["id", "status", "reason", "hint", "seconds", "enhancing_ml", "notices"]
    estimate = ["enhancement_probability", "estimated_ml", "estimated_low_ml", "estimated_high_ml"]
    assert list(table[0]) == [*columns, *estimate]
    assert [row["id"] for row in table] == list(order)
    assert all(bool(row["reason"]) == bool(row["hint"]) == (row["status"] == "failed") for row in table)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["a", "d"]
    assert not hidden(tmp_path / "out")


def test_whole_results_are_skipped_and_others_redone(tmp_path: Path, synthesis: Synthesis) -> None:
    """Untouched results are skipped; a cut file, other scans, another seed or the wish for a trace make it again."""
    cases, out = tmp_path / "in", tmp_path / "out"
    for name in "ab":
        write_case(cases / name, name)
    assert {row.status for row in run(cases, out, synthesis).values()} == {"done"}
    before = (out / "a/cemri.nii.gz").stat()
    rows = run(cases, out, synthesis)
    assert {row.status for row in rows.values()} == {"skipped"}
    assert rows["a"].enhancing_ml is not None
    assert (out / "a/cemri.nii.gz").stat().st_mtime_ns == before.st_mtime_ns

    content = (out / "a/cemri.nii.gz").read_bytes()
    (out / "a/cemri.nii.gz").write_bytes(content[: len(content) // 2])
    assert {n: r.status for n, r in run(cases, out, synthesis).items()} == {"a": "done", "b": "skipped"}
    assert (out / "a/cemri.nii.gz").read_bytes() == content

    write_case(cases / "b", "b", seed=7)
    assert {n: r.status for n, r in run(cases, out, synthesis).items()} == {"a": "skipped", "b": "done"}

    traced = Synthesis(synthesis.model, SynthesisOptions(device="cpu", quality="preview", trace=True))
    assert run(cases, out, traced)["a"].status == "done"
    assert run(cases, out, traced)["a"].status == "skipped"
    other_seed = Synthesis(synthesis.model, SynthesisOptions(device="cpu", quality="preview", seed=1))
    assert run(cases, out, other_seed)["a"].status == "done"


def test_nothing_but_results_is_replaced(tmp_path: Path, synthesis: Synthesis) -> None:
    """A batch into the folder of its own cases leaves the scans alone and says why."""
    case = write_case(tmp_path / "case", "case")
    (row,) = run(tmp_path, tmp_path, synthesis).values()
    assert row.status == "failed"
    assert "is or holds an input" in row.reason
    assert sorted(p.name for p in case.folder.iterdir()) == sorted(
        f"case_{c}.nii.gz" for c in ("t1", "t2", "flair", "t1ce", "seg")
    )


def test_brats_names(tmp_path: Path, synthesis: Synthesis) -> None:
    """`--naming brats` also writes the image where BraTS tools look for it, for skipped cases as well."""
    write_case(tmp_path / "in/BraTS-GLI-00001-000", "BraTS-GLI-00001-000")
    for _ in range(2):
        run(tmp_path / "in", tmp_path / "out", synthesis, brats=True)
        copy = tmp_path / "out/BraTS-GLI-00001-000-t1c.nii.gz"
        assert copy.read_bytes() == (tmp_path / "out/BraTS-GLI-00001-000/cemri.nii.gz").read_bytes()
        copy.unlink()


def test_progress_of_the_batch(tmp_path: Path, synthesis: Synthesis) -> None:
    """One rising fraction over all cases, each event naming its case."""
    for name in "ab":
        write_case(tmp_path / "in" / name, name)
    events: list[Progress] = []
    run_batch(find_cases(tmp_path / "in"), tmp_path / "out", synthesis, False, events.append)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-1] <= 1
    assert {event.stage for event in events} == {"case"}
    assert events[-1].message.startswith("Case 2 of 2 (b)")


def test_defect_in_one_case_is_a_row(tmp_path: Path, synthesis: Synthesis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an error that nobody thought of, or memory running out, costs one case; the user's stop ends all."""
    for name in "abc":
        write_case(tmp_path / "in" / name, name)
    original, count = synthesis.run, 0

    def fail(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 1:
            raise ValueError("something odd")
        if count == 2:
            raise MemoryError
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(synthesis, "run", fail)
    rows = run(tmp_path / "in", tmp_path / "out", synthesis)
    assert [rows[name].status for name in "abc"] == ["failed", "failed", "done"]
    assert "defect" in rows["a"].reason
    assert "memory" in rows["b"].reason

    def stop(*_: object) -> object:
        raise D3MError("The run was stopped.", "", "interrupted")

    monkeypatch.setattr(synthesis, "run", stop)
    with pytest.raises(D3MError, match="stopped"):
        run(tmp_path / "in", tmp_path / "other", synthesis)


def test_two_batches_do_not_collide(tmp_path: Path, synthesis: Synthesis) -> None:
    """While one batch writes into a folder a second one is refused; afterwards the folder is free."""
    write_case(tmp_path / "in/a", "a")

    def second(_: Progress) -> None:
        with pytest.raises(D3MError, match="Another batch"):
            run_batch(find_cases(tmp_path / "in"), tmp_path / "out", synthesis, False, ignore_progress)

    (row,) = run_batch(find_cases(tmp_path / "in"), tmp_path / "out", synthesis, False, second)
    assert row.status == "done"
    assert run(tmp_path / "in", tmp_path / "out", synthesis)["a"].status == "skipped"


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_killed_batch_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    """Killed in the middle of case 2: the next run skips case 1, redoes case 2 and removes what was left over."""
    for name in "abc":
        write_case(tmp_path / "in" / name, name)
    out = tmp_path / "out"
    command = ("batch", tmp_path / "in", "--out", out, "--model", tiny_model, "--device", "cpu", "--progress", "json")
    command = (*command, "--quality", "standard", "--steps", "4")
    process = start(*command)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["fraction"] > 0.5:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate(timeout=30)
    assert sorted(p.name for p in out.iterdir() if p.is_dir() and p.name[0] != ".") == ["a"]
    (out / ".d3m-partial-abandoned").mkdir()  # as a kill in the middle of writing leaves it
    done = d3m_command(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["stage"] == "done"
    with (out / "summary.csv").open(encoding="utf-8") as f:
        assert [row["status"] for row in csv.DictReader(f)] == ["skipped", "done", "done"]
    assert not hidden(out)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_does_not_grow(tmp_path: Path, synthesis: Synthesis) -> None:
    """Six times the same case: the same image each time, and no memory that stays behind after the second."""
    import gc

    case = write_case(tmp_path / "case")
    rows = "\n".join(f"{case.t1},{case.t2},{case.flair},c{k}" for k in range(6))
    (tmp_path / "cases.csv").write_text(f"t1,t2,flair,id\n{rows}\n")
    held: list[int] = []

    def measure(event: Progress) -> None:
        if "Reading" in event.message:
            gc.collect()
            status = Path("/proc/self/status").read_text()
            held.append(int(status.split("VmRSS:")[1].split()[0]))

    run_batch(find_cases(tmp_path / "cases.csv"), tmp_path / "out", synthesis, False, measure)
    assert max(held[2:]) < 1.05 * held[2]
    images = [np.asarray(nibabel.load(tmp_path / f"out/c{k}/cemri.nii.gz").dataobj) for k in range(6)]
    assert all(np.array_equal(images[0], image) for image in images[1:])


def test_exit_code_tells_that_a_case_failed(tmp_path: Path, tiny_case: TinyCase, tiny_model: Path) -> None:
    """The command ends with 2 and names the summary; the good case is there, with its trace."""
    shutil.copytree(tiny_case.folder, tmp_path / "in/good")
    shutil.copytree(tiny_case.folder, tmp_path / "in/bad")
    for path in (tmp_path / "in/bad").iterdir():
        path.rename(path.with_name(path.name.replace("case_", "bad_")))
    (tmp_path / "in/bad/bad_t1.nii.gz").write_bytes(b"no image")
    done = d3m_command(
        "batch", "in", "--out", "out", "--model", tiny_model, "--quality", "preview", "--naming", "brats", "--trace",
        "--device", "cpu", "--progress", "json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["stage"], last["kind"]) == ("error", "input")
    assert "1 of 2 cases" in last["message"]
    assert "summary.csv" in last["hint"]
    assert (tmp_path / "out/case-t1c.nii.gz").is_file()
    assert (tmp_path / "out/case/trace/step_001_field.nii.gz").is_file()
    assert "Traceback" not in done.stderr
