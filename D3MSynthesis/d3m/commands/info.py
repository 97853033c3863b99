"""`d3m info`: devices, models, and what each quality costs on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

import d3m
from d3m.errors import D3MError, Notice
from d3m.system.console import Reporter, require_torch, session
from d3m.system.text import for_terminal


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show devices, models, and what each quality will cost here."""
    reporter = Reporter("json" if as_json else "none")
    with session(reporter):
        require_torch()
        import torch

        from d3m.models.cost import measure_costs
        from d3m.models.store import list_models, read_card
        from d3m.system.devices import list_devices

        devices, models, costs = list_devices(), [], {}
        for entry in list_models():
            try:
                costs[entry.name] = measure_costs(entry.folder)
                models.append(entry)
            except D3MError as error:  # one damaged model must not hide the others
                reporter.notice(Notice("model-unusable", f"The model {entry.name!r} cannot be used: {error.message}"))
        if as_json:
            content = {
                "version": d3m.__version__,
                "torch": torch.__version__,
                "devices": [asdict(device) for device in devices],
                "models": [
                    {
                        "name": entry.name, "removable": entry.removable, "folder": str(entry.folder),
                        "title": read_card(entry.folder).title, "costs": [asdict(cost) for cost in costs[entry.name]],
                    }
                    for entry in models
                ],
            }  # fmt: skip
            typer.echo(json.dumps(content, indent=1))
            return
        typer.echo(f"d3m {d3m.__version__}, torch {torch.__version__}")
        for found in devices:
            memory = "" if found.memory_bytes is None else f", {found.memory_bytes / 2**30:.0f} GiB"
            typer.echo(
                f"  {found.name}: {found.title}{memory}" + ("" if found.usable else f" - not usable: {found.reason}")
            )
        for entry in models:
            typer.echo(for_terminal(f"model {entry.name}: {read_card(entry.folder).title}"))
            for cost in costs[entry.name]:
                typer.echo(
                    f"  {cost.quality:9s} about {cost.seconds:.0f} s and {cost.memory_mb:.0f} MB on {cost.device}"
                )
