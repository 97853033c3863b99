"""The method: schedule, warp, network and reverse steps. Tensors only, no files."""
