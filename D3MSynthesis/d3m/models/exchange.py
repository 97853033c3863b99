"""A model as other programs expect one: an ONNX graph, a MONAI bundle, a folder for the Hugging Face Hub.

Card and weights lie unchanged in each, so that `import_model` brings the same model back.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import d3m
from d3m.diffusion.recipe import REGIONS
from d3m.errors import D3MError
from d3m.models.card import Card, ValidationRow
from d3m.models.load import Model, load_model
from d3m.models.store import BUNDLE_MODELS, CARD_NAME, find_model, weights_path, whole_brain_path
from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.storage import write_text
from d3m.system.text import for_html, for_json
from d3m.volumes.types import CONTRASTS

EXPORT = FolderKind("exported model", "an earlier export")
ONNX_NAME = "reverse_step.onnx"
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""What `monai.bundle verify_metadata` compares a bundle's metadata with."""
LICENCES = {"CC BY-NC 4.0": "cc-by-nc-4.0", "CC BY 4.0": "cc-by-4.0", "Apache-2.0": "apache-2.0", "MIT": "mit"}
"""What a card's licence may begin with, and how the Hub calls it; others are "other" there."""
HUB_METRICS = {"psnr": "psnr", "ssim": "ssim", "dice": "dice", "auc": "roc_auc"}
"""What the name of a validation row begins with, and how the Hub calls that."""


def export_model(model: str | None, out: Path, format_name: str, force: bool = False) -> str:
    """Write a model in a form that other programs read.

    Args:
        model: A name from `list_models`, a path to a folder, or None for the default model.
        out: The folder; it appears whole or not at all.
        format_name: A key of `FORMATS`.
        force: Replace an earlier export.

    Returns:
        What was made, in one line.

    Raises:
        D3MError: no such model or format, a damaged model, packages that are missing, a folder that cannot be written.
    """
    if format_name not in FORMATS:
        raise D3MError(f"There is no format {format_name!r}.", f"Choose one of: {', '.join(FORMATS)}.")
    folder = find_model(model)
    check_output(out, EXPORT, force, [folder])
    with whole_folder(out, EXPORT, replace=force) as partial:
        return FORMATS[format_name](folder, partial)


def _copy_model(folder: Path, target: Path) -> Model:
    """Card and weights as they are; the model that they are of."""
    model = load_model(folder)
    card = model.card
    target.mkdir(exist_ok=True)
    write_text(target / CARD_NAME, card.to_json())
    for path in (weights_path(folder, card), whole_brain_path(folder, card)):
        if path is not None:
            shutil.copyfile(path, target / path.name)
    return model


def _onnx(folder: Path, out: Path) -> str:
    from d3m.models.reverse_step import INPUTS, OUTPUTS, write_onnx

    model = _copy_model(folder, out)
    card, difference = model.card, write_onnx(model, out / ONNX_NAME)
    sizes, diffusion = card.recipe.network, card.recipe.diffusion
    seen = ", ".join((*card.contrasts, *REGIONS[: sizes.maps]))
    use = (
        f"`{ONNX_NAME}` is one reverse step of the sampler with its warp, for any number of slices, and for rows and "
        f"columns that are multiples of {sizes.stride}.\n\n"
        f"Inputs, as far as this model uses them: {', '.join(INPUTS)}. Outputs: {', '.join(OUTPUTS)}.\n\n"
        f"Begin with the same noise in every slice at t = {diffusion.timesteps} and end at s = 0. "
        f"`image` of the last step is the synthetic slice, scaled like T1 "
        f"(0 to {diffusion.image_upper:g}). The condition is {seen}, each in [0, 1], of the "
        f"slices {', '.join(f'{k:+d}' for k in sizes.context)}, one after the other; a contrast that is missing is "
        "0. The file prepares no scans and brings nothing back onto their grid."
    )
    if sizes.maps:
        use += (
            f" The maps ({', '.join(REGIONS)}) come from the model's whole-brain stage, which is not in the graph: "
            "`d3m.load_model(FOLDER).whole_brain` computes them."
        )
    write_text(out / "README.md", _readme(card, use))
    return f"One reverse step, checked in onnxruntime: it differs from torch by {difference:.1g} at the most."


def _monai(folder: Path, out: Path) -> str:
    card = _copy_model(folder, out / BUNDLE_MODELS).card
    (out / "configs").mkdir()
    (out / "docs").mkdir()
    write_text(out / "configs" / "metadata.json", _json(_metadata(card)))
    write_text(out / "configs" / "inference.json", _json(_inference(card)))
    use = (
        "Needs `slicer-d3m` beside MONAI:\n\n```\n"
        "python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\\n"
        "    --t1 T1.nii.gz --t2 T2.nii.gz --flair FLAIR.nii.gz --output_dir RESULT\n```\n\n"
        "Without scans it runs the simulated patient that comes with `slicer-d3m`."
    )
    write_text(out / "docs" / "README.md", _readme(card, use))
    write_text(out / "LICENSE", _licence(card))
    return "A MONAI bundle: `python -m monai.bundle run --config_file configs/inference.json --bundle_root .` runs it."


def _huggingface(folder: Path, out: Path) -> str:
    card = _copy_model(folder, out).card
    use = (
        "```\nd3m models import FOLDER          # where you downloaded this\n"
        f"d3m synthesize --model {card.name} --t1 T1.nii.gz --t2 T2.nii.gz --flair FLAIR.nii.gz --out RESULT\n```"
    )
    write_text(out / "README.md", _front_matter(card) + _readme(card, use))
    write_text(out / "LICENSE", _licence(card))
    return "A folder for the Hugging Face Hub: README.md is its model card."


FORMATS: dict[str, Callable[[Path, Path], str]] = {"onnx": _onnx, "monai": _monai, "huggingface": _huggingface}
"""What writes each format: the model's folder and the new one in, what was made out."""


def _json(value: object) -> str:
    return json.dumps(for_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _licence(card: Card) -> str:
    return (card.licence or "The model's card states no licence: ask its authors.") + "\n"


def _metadata(card: Card) -> dict[str, object]:
    """A bundle's metadata: what MONAI's schema of 2024-07-25 asks for, from the card."""
    seen, context = (*card.contrasts, *REGIONS[: card.recipe.network.maps]), card.recipe.network.context
    stride = card.recipe.network.stride
    image = {"type": "image", "spatial_shape": [f"{stride}*m", f"{stride}*n"], "dtype": "float32"}
    channels = [f"{name} of slice {offset:+d}" for offset in context for name in seen]

    def tensor(form: str, values: tuple[float, float], names: Iterable[str]) -> dict[str, object]:
        described = {str(k): name for k, name in enumerate(names)}
        return image | {
            "format": form,
            "value_range": list(values),
            "num_channels": len(described),
            "channel_def": described,
        }

    noise = (-1000.0, 1000.0)
    return {
        "schema": SCHEMA,
        "name": card.title,
        "version": d3m.__version__,
        "changelog": {d3m.__version__: "exported with `d3m models export`"},
        "monai_version": _version("monai", "1.3"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"slicer-d3m": d3m.__version__, "safetensors": _version("safetensors")},
        "task": f"Synthetic contrast-enhanced T1 of the brain from {_seen(card)}",
        "description": f"{card.title}. {card.intended_use} {card.limits}".strip(),
        "authors": card.citation or card.title,
        "copyright": card.licence or "The model's card states no licence.",
        "data_source": card.data,
        "data_type": "nibabel",
        "image_classes": f"{_seen(card)}, each scaled by its percentiles",
        "pred_classes": "synthetic contrast-enhanced T1, and enhancing tumour",
        "eval_metrics": {row.name: round(row.mean, 4) for row in card.validation},
        "intended_use": card.intended_use,
        "references": [card.citation] if card.citation else [],
        "network_data_format": {
            "inputs": {
                "x_t": tensor("noise", noise, ["noisy image"]),
                "m_t": tensor("noise", noise, ["noisy mask"]),
                "condition": tensor("magnitude", (0, 1), channels),
                "t": {"type": "time", "format": "raw", "spatial_shape": [], "dtype": "int64", "num_channels": 1,
                      "value_range": [1, card.recipe.diffusion.timesteps]},
            },
            "outputs": {
                "image": tensor("velocity", noise, ["velocity of the image"]),
                "mask": tensor("velocity", noise, ["velocity of the mask"]),
            },
        },
    }  # fmt: skip


def _seen(card: Card) -> str:
    """The contrasts that a model takes, for a sentence."""
    *first, last = (name.upper() for name in card.contrasts)
    return f"{', '.join(first)} and {last}"


def _version(package: str, otherwise: str = "") -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def _inference(card: Card) -> dict[str, object]:
    """A bundle's configuration for inference, with the names that MONAI's properties have; see the bundle's README."""
    further = card.contrasts[len(CONTRASTS) :]  # always optional, and the simulated patient has none
    return {
        "imports": [
            "$import d3m",
            "$from pathlib import Path",
            "$from d3m.models.load import load_model",
            "$from d3m.models.store import find_sample",
        ],
        "bundle_root": ".",
        "model_folder": f"$str(Path(@bundle_root) / '{BUNDLE_MODELS}')",
        "device": "auto",
        "quality": "standard",
        "dataset_dir": "$find_sample().t1.parent",
        "t1": "$find_sample().t1",
        "t2": "$find_sample().t2",
        "flair": "$find_sample().flair",
        **dict.fromkeys(further),
        "output_dir": "$Path(@bundle_root) / 'eval'",
        "dataset": {name: f"@{name}" for name in card.contrasts},
        "network_def": "$load_model(Path(@model_folder)).network",
        "inferer": "$lambda **scans: d3m.synthesize(**scans, out=@output_dir, "
        "model=@model_folder, quality=@quality, device=@device)",
        "evaluator": "$lambda: @inferer(**@dataset)",
        "run": ["$@evaluator()"],
    }


def _front_matter(card: Card) -> str:
    """The block at the head of a model card on the Hub: YAML, of which JSON is a part."""
    licence = next((name for start, name in LICENCES.items() if card.licence.startswith(start)), "other")
    metrics = sorted({name for row in card.validation if (name := _hub_metric(row))})
    content: dict[str, object] = {"license": licence}
    if licence == "other":
        content |= {"license_name": "see-license", "license_link": "LICENSE"}
    content |= {
        "library_name": "slicer-d3m",
        "pipeline_tag": "image-to-image",
        "tags": ["medical", "mri", "brain", "diffusion", "image-synthesis", "synthetic", "research-only"],
        "metrics": metrics,
    }
    rows = [
        {"type": _hub_metric(row), "name": f"{row.name} (n = {row.n})", "value": round(row.mean, 4)}
        for row in card.validation
        if _hub_metric(row)
    ]
    if rows:
        task = {"type": "image-to-image", "name": "Synthetic contrast-enhanced T1"}
        data = {"type": "private", "name": "Validation patients (see Data)"}
        content["model-index"] = [{"name": card.name, "results": [{"task": task, "dataset": data, "metrics": rows}]}]
    return (
        "---\n"
        + "".join(f"{k}: {json.dumps(for_json(v), ensure_ascii=False)}\n" for k, v in content.items())
        + "---\n\n"
    )


def _hub_metric(row: ValidationRow) -> str:
    return next((name for start, name in HUB_METRICS.items() if row.name.startswith(start)), "")


def _readme(card: Card, use: str) -> str:
    """What a person should know before using a model, as Markdown."""
    parts = [
        f"# {for_html(card.title)}",
        f"Synthetic contrast-enhanced brain MRI from {_seen(card)}, by a deformation-driven diffusion model. "
        f"**{for_html(card.intended_use)}**",
        f"## Use\n\nInstall D3M for 3D Slicer's package `slicer-d3m` {d3m.__version__} or later.\n\n{use}",
    ]
    texts = (("Scans", card.expected), ("Limits", card.limits), ("Data", card.data), ("Training", card.training))
    parts += [f"## {title}\n\n{for_html(text)}" for title, text in texts if text]
    tables = [("Validation", card.validation_note, card.validation)]
    tables += [(f"Validation without {one.contrast.upper()}", "", one.rows) for one in card.validation_without]
    tables += [("Whether and how much enhances", "Each patient by a fit without the patient.", card.patient_validation)]
    for title, note, measured in tables:
        rows = "\n".join(f"| {for_html(r.name)} | {r.mean:.3f} | {r.sd:.3f} | {r.n} |" for r in measured)
        head = "\n\n".join(text for text in (f"## {title}", for_html(note)) if text)
        parts += [f"{head}\n\n| quantity | mean | sd | patients |\n|---|---|---|---|\n{rows}"] if rows else []
    terms = (("Licence", _licence(card).strip()), ("Citation", card.citation))
    parts += [f"## {title}\n\n{for_html(text)}" for title, text in terms if text]
    return "\n\n".join(parts) + "\n"
