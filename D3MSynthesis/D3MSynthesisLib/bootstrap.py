"""What the engine's process runs first; it is started with `python bootstrap.py PACKAGE PROGRAM FOLDER PARENT ...`.

The engine is loaded from exactly one folder, so that nothing that lies beside it, and no other package of that name, is
found. Another program that uses it, such as the training, is loaded in the same way; both are then findable, after
everything else, for the processes that it starts itself. The process leads a group of its own, says its number
(Slicer's launcher has another), and removes the folder of its run if nobody is left to do so.
"""

# ruff: noqa: E402, PTH118, PTH119, PTH120
import sys

sys.path[0:1] = []  # this file's folder: what lies in it is Slicer's part, not the engine's

import importlib.util
import os
import runpy
import shutil

package, program, folder, parent = sys.argv[1:5]
starter = os.getppid()
if hasattr(os, "setsid"):
    try:  # noqa: SIM105 - contextlib is one more import
        os.setsid()
    except OSError:
        pass  # it leads a group already
print('{"stage": "started", "pid": %d}' % os.getpid(), flush=True)  # noqa: UP031
for place in [package, program] if program else [package]:
    name = os.path.basename(place)
    start = os.path.join(place, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[place])
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
if program:
    sys.path += [os.path.dirname(package), os.path.dirname(program)]
sys.argv[1:5] = []


def orphan() -> bool:
    """Whether the process that started this one is gone."""
    try:
        os.kill(int(parent), 0)
        return os.getppid() != starter
    except OSError:
        return True


try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
finally:
    if folder and os.name != "nt" and orphan():
        shutil.rmtree(folder, ignore_errors=True)
