"""Patients on disk to batches: data sets, labels, splits, the cache."""
