"""As somebody without root's powers: folders that are not theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import TinyCase
from engine.command_helpers import environment

NOBODY, LAB = 65534, 54321
POWERS = "+dac_read_search"
"""The interpreter may lie where only root can look; writing goes by the usual rights."""
CODE = """
import json, os, sys
from typer.testing import CliRunner
from d3m.commands.app import app
assert os.getuid() == os.geteuid() == int(sys.argv[1])
done = []
for umask, arguments in json.loads(sys.argv[2]):
    os.umask(umask)
    result = CliRunner().invoke(app, arguments)
    done.append([result.exit_code, result.output])
print(json.dumps(done))
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0 or shutil.which("setpriv") is None,
    reason="becomes another user: needs root and setpriv",
)


@pytest.fixture
def place(tiny_case: TinyCase, tiny_model: Path) -> Iterator[Path]:
    """A folder of root's that everybody can read, with a case and a model; pytest's own folders are private."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(tiny_case.folder, place / "case")
        shutil.copytree(tiny_model, place / "model")
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield place


def as_nobody(*commands: tuple[int, list[str]]) -> list[tuple[int, str]]:
    """Run commands of the engine, each with its umask, as nobody who belongs to a lab: exit codes and outputs."""
    user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", str(LAB)]
    user += ["--inh-caps", POWERS, "--ambient-caps", POWERS]
    done = subprocess.run(
        [*user, sys.executable, "-c", CODE, str(NOBODY), json.dumps(commands)],
        env=environment(HOME="/nonexistent", XDG_CACHE_HOME=None, MPLCONFIGDIR=None),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode and "setpriv:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    return [(code, output) for code, output in json.loads(done.stdout.splitlines()[-1])]


def scans(*paths: Path) -> list[str]:
    """The options of the three scans."""
    return [text for name, path in zip(("t1", "t2", "flair"), paths, strict=True) for text in (f"--{name}", str(path))]


def test_somebody_elses_folder_is_told_before_the_work(place: Path) -> None:
    """A parent that cannot be written: exit code 3 before the scans, which are no images, are read; nothing is left.

    That holds for a new folder and for an empty one of another user's.
    """
    shut = place / "shut"
    (shut / "empty").mkdir(parents=True)
    damaged = place / "scan.nii.gz"
    damaged.write_bytes(b"no image")
    (place / "cohort/P1").mkdir(parents=True)
    for name in ("t1", "t2", "flair"):
        (place / f"cohort/P1/P1_{name}.nii.gz").write_bytes(b"no image")
    shut.chmod(0o555)
    before = sorted(shut.rglob("*"))
    model = ["--model", str(place / "model")]
    refused = as_nobody(
        (0o022, ["synthesize", *scans(damaged, damaged, damaged), *model, "--out", str(shut / "out")]),
        (0o022, ["synthesize", *scans(damaged, damaged, damaged), *model, "--out", str(shut / "new/out")]),
        (0o022, ["synthesize", *scans(damaged, damaged, damaged), *model, "--out", str(shut / "empty")]),
        (0o022, ["batch", str(place / "cohort"), *model, "--out", str(shut / "out")]),
        (0o022, ["dicom", str(damaged), str(damaged), "--out", str(shut / "out")]),
    )
    for code, output in refused:
        assert code == 3, output
        assert "written" in output, output
        assert "Permission denied" in output, output
    assert sorted(shut.rglob("*")) == before


@pytest.mark.long
def test_share_of_a_lab_and_umask(place: Path) -> None:
    """A member writes into the lab's folder: all is the lab's group's, with the rights that the umask leaves.

    Root may do what members may not, so that only a run as somebody else shows it.
    """
    share = place / "share"
    share.mkdir()
    os.chown(share, 0, LAB)
    share.chmod(0o2770)
    given = [*scans(*(place / f"case/case_{name}.nii.gz" for name in ("t1", "t2", "flair")))]
    given += ["--model", str(place / "model"), "--quality", "preview", "--device", "cpu", "--out"]
    masks = {"private": 0o077, "shared": 0o002}
    made = as_nobody(*((mask, ["synthesize", *given, str(share / name)]) for name, mask in masks.items()))
    assert [code for code, _ in made] == [0, 0], made
    for name, mask in masks.items():
        out = share / name
        for path in (out, *out.rglob("*")):
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (NOBODY, LAB), path
            assert status.st_mode & 0o7777 == (0o2777 if path.is_dir() else 0o666) & ~mask, path
    assert {path.name for path in share.iterdir()} == set(masks)
