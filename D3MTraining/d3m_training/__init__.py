"""Training, evaluation and baselines of D3M."""
