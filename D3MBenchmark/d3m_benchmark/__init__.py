"""The comparison of D3M with other methods: a research benchmark, not part of the Slicer extension."""
