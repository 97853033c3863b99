"""The steps of Dockerfile and apptainer.def where no engine runs: each in a bare Debian, then used as another user.

    debootstrap --variant=minbase bookworm BARE
    python Testing/benchmarks/container.py BARE PLACE --torch-index INDEX

Needs root on Linux. The images appear in PLACE. Each then runs on the sample case, as `docker run --read-only --network
none --user 54321:54321` and `apptainer run` would: nothing but the folder for results can be written, /tmp included,
there is no network and no home, and nobody knows the user. With other data: `--data`. INDEX is a folder that pip
reads as an index, with PyTorch's wheel for the CPU; without it the images are some gigabytes larger.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from engine.container_helpers import apptainer_sections, copied, dockerfile_steps, sent

CHECKOUT = Path(__file__).resolve().parents[2]
USER = "54321:54321"
DEVICES = ("null", "zero", "full", "random", "urandom")
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INDEX, CERTIFICATES = "/torch-index", "/certificates.crt"


def run_in(root: Path, script: str, variables: Mapping[str, str], user: str = "0:0", folder: str = "/") -> None:
    """A step of a build: may write and has a network."""
    mounts = f"mount -t proc proc {root}/proc; " + _devices(root)
    inner = f"cd {folder} && {script}"
    outer = f'set -e; {mounts} exec chroot --userspec={user} {root} env -i "$@" sh -c "$0"'
    _check(["unshare", "-m", "bash", "-c", outer, inner, *(f"{k}={v}" for k, v in variables.items())])


def use(root: Path, words: list[str], variables: Mapping[str, str], data: Path, out: Path) -> None:
    """What `docker run --read-only --network none --user` does, with the data at /in and the results at /out."""
    for name in ("in", "out"):
        (root / name).mkdir(exist_ok=True)
    outer = (
        f"set -e; mount --bind {root} {root}; mount -t proc proc {root}/proc; {_devices(root)}"
        f"mount --bind -o ro {data} {root}/in; mount --bind {out} {root}/out; mount -o remount,ro,bind {root}; "
        f'chroot --userspec={USER} {root} sh -c ": > /tmp/probe" 2>/dev/null && exit 99; '
        f'exec chroot --userspec={USER} {root} env -i "$@"'
    )
    given = [f"{k}={v}" for k, v in variables.items()]
    _check(["unshare", "-m", "-n", "bash", "-c", outer, "use", *given, *words])


def _devices(root: Path) -> str:
    nodes = "".join(f"touch {root}/dev/{n}; mount --bind /dev/{n} {root}/dev/{n}; " for n in DEVICES)
    return f"mount -t tmpfs tmpfs {root}/dev; {nodes}"


def _check(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(command[-6:])}")


def _copy(source: Path, target: Path) -> None:
    _check(["cp", "-a", "--reflink=auto", str(source), str(target)])


def _bring(root: Path, name: str, target: Path) -> None:
    """What the build takes of the checkout: .dockerignore decides."""
    listed = subprocess.run(["git", "ls-files", name], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for path in filter(lambda path: sent(CHECKOUT, path), listed.stdout.splitlines()):
        place = root / target.relative_to("/") / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / path, place)


def _bare(bare: Path, root: Path, index: Path | None, certificates: Path | None) -> None:
    """A root to build in, with what this machine needs to reach packages."""
    _copy(bare, root)
    if index is not None:
        shutil.copytree(index, root / INDEX[1:])
    if certificates is not None:
        shutil.copy(certificates, root / CERTIFICATES[1:])


def _clean(root: Path) -> None:
    shutil.rmtree(root / INDEX[1:], ignore_errors=True)
    (root / CERTIFICATES[1:]).unlink(missing_ok=True)


def docker(bare: Path, place: Path, ours: dict[str, str]) -> tuple[Path, list[str], dict[str, str]]:
    """Do the Dockerfile's steps; the image, its entry point, and its variables."""
    steps = dockerfile_steps(CHECKOUT / "Dockerfile")
    names: dict[str, Path] = {}
    root, variables, folder, user, entry = bare, dict[str, str](), "/", "0:0", list[str]()
    for number, step in enumerate(steps):
        print(f"Dockerfile: {step.word} {step.text[:100]}", flush=True)
        if step.word == "FROM":
            source, _, name = step.text.partition(" AS ")
            root, variables, folder, user = place / f"stage{step.stage}", {"PATH": SEARCHED}, "/", "0:0"
            _copy(names.get(source, bare), root)
            names[name] = root
        elif step.word == "RUN":
            run_in(root, step.text, variables | ours, user, folder)
        elif step.word == "COPY" and step.text.startswith("--from="):
            source, origin, target = step.text.removeprefix("--from=").split()
            _copy(names[source] / origin[1:], root / target[1:])
        elif step.word == "COPY":
            for source in copied(step)[0]:
                _bring(root, source, Path(folder))
        elif step.word == "WORKDIR":
            folder = step.text
            (root / folder[1:]).mkdir(parents=True, exist_ok=True)
        elif step.word == "ENV":
            variables |= dict(re.findall(r"(\w+)=(\S+)", step.text))
        elif step.word == "USER":
            user = step.text
        elif step.word == "ENTRYPOINT":
            entry = json.loads(step.text)
        elif step.word not in ("ARG", "CMD"):
            sys.exit(f"step {number}: {step.word} is not known here")
    return root, entry, variables


def apptainer(bare: Path, place: Path, ours: dict[str, str]) -> tuple[Path, list[str], dict[str, str]]:
    """Do apptainer.def's steps; the image, what its run script starts, and its variables."""
    sections = apptainer_sections(CHECKOUT / "apptainer.def")
    root = place / "apptainer"
    _copy(bare, root)
    for line in sections["%files"]:
        _bring(root, line.split()[0], Path("/source"))
    post = "\n".join(sections["%post"]).replace("{{ TORCH_INDEX }}", ours.get("TORCH_INDEX", "default"))
    print("apptainer.def: %post", flush=True)
    run_in(root, post, {"PATH": SEARCHED} | ours)
    exports = next(line for line in sections["%environment"] if line.startswith("export"))
    variables = dict(re.findall(r"(\w+)=(\S+)", exports))
    print("apptainer.def: %test", flush=True)
    run_in(root, "\n".join(sections["%test"]), variables, USER)
    (script,) = sections["%runscript"]
    return root, script.removeprefix("exec ").replace('"$@"', "").split(), variables


def sample(place: Path) -> Path:
    """The sample case as a BIDS data set."""
    folder = place / "bids" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    for name, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR")):
        source = CHECKOUT / "Resources" / "SampleData" / f"sample_{name}.nii.gz"
        shutil.copy(source, folder / f"sub-01_{suffix}.nii.gz")
    description = {"Name": "sample", "BIDSVersion": "1.10.0"}
    (place / "bids" / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    return place / "bids"


def main(
    bare: Annotated[Path, typer.Argument(help="Root of a bare Debian, from debootstrap; it is copied.")],
    place: Annotated[Path, typer.Argument(help="New folder for the images and results.")],
    torch_index: Annotated[Optional[Path], typer.Option(help="Folder of an index with PyTorch's CPU wheel.")] = None,
    certificates: Annotated[Optional[Path], typer.Option(help="What pip trusts here (PIP_CERT).")] = None,
    data: Annotated[Optional[Path], typer.Option(help="BIDS data set instead of the sample.")] = None,
    only: Annotated[Optional[str], typer.Option(help="Dockerfile or apptainer.def alone.")] = None,
) -> None:
    """Build both, and use each."""
    place = place.resolve()
    place.mkdir(parents=True)
    prepared = place / "bare"
    _bare(bare, prepared, torch_index, certificates)
    shutil.copy("/etc/resolv.conf", prepared / "etc" / "resolv.conf")
    ours = {"TORCH_INDEX": f"file://{INDEX}"} if torch_index else {}
    ours |= {"PIP_CERT": CERTIFICATES} if certificates else {}
    given = data or sample(place)
    for name, build in (("Dockerfile", docker), ("apptainer.def", apptainer)):
        if only in (None, name):
            root, entry, variables = build(prepared, place, ours)
            _clean(root)
            out = place / f"out-{name}"
            out.mkdir()
            os.chown(out, *map(int, USER.split(":")))
            for level in ("participant", "group"):
                print(f"{name}: {' '.join(entry)} /in /out {level}", flush=True)
                use(root, [*entry, "/in", "/out", level], variables, given, out)
            print(f"{name}: {sum(p.is_file() for p in out.rglob('*'))} files of results", flush=True)


if __name__ == "__main__":
    typer.run(main)
