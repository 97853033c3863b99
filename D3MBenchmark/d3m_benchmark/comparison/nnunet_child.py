"""Runs nnU-Net inside its own environment; talks by arguments and knows nothing of this package.

nnU-Net's own command for training looks through all its trainers, some of which need torchvision; so its trainer is
used directly, under its own name (checkpoints keep it), with as many epochs and iterations as asked for.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    """Read the arguments and train or predict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("train", "predict"))
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--cases")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if arguments.action == "train":
        train(arguments)
    else:
        predict(arguments)


def train(arguments: argparse.Namespace) -> None:
    """Train one fold and validate it."""
    import torch
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    class nnUNetTrainer(module.nnUNetTrainer):  # noqa: N801 - checkpoints keep the name, prediction looks for it
        """nnU-Net's trainer with another length; the arguments are spelled out because its parent inspects them."""

        def __init__(
            self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = arguments.epochs
            self.num_iterations_per_epoch = arguments.iterations
            self.num_val_iterations_per_epoch = max(1, arguments.iterations // 5)

    folder = Path(os.environ["nnUNet_preprocessed"]) / arguments.dataset  # noqa: SIM112 - its name
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    plans["continue_training"] = False
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    fold = "all" if arguments.fold == "all" else int(arguments.fold)
    trainer = nnUNetTrainer(plans, arguments.configuration, fold, dataset, torch.device(arguments.device))
    trainer.run_training()
    trainer.perform_actual_validation()


def predict(arguments: argparse.Namespace) -> None:
    """Segment every case of a folder with the last weights of one fold."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = Path(os.environ["nnUNet_results"]) / arguments.dataset  # noqa: SIM112 - its name
    model = model / f"nnUNetTrainer__nnUNetPlans__{arguments.configuration}"
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device(arguments.device), perform_everything_on_device=False, verbose=False
    )
    fold = "all" if arguments.fold == "all" else int(arguments.fold)
    predictor.initialize_from_trained_model_folder(str(model), (fold,), "checkpoint_final.pth")
    predictor.predict_from_files(
        arguments.cases, arguments.out, save_probabilities=False, overwrite=True, num_processes_preprocessing=1,
        num_processes_segmentation_export=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
