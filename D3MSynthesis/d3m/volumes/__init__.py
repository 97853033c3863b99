"""Scans on disk to the model's grid, and the exact way back. Knows files and geometry, never the network."""
