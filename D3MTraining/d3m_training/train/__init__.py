"""Training: the loop, checkpoints, losses, and D3M's own training step."""
