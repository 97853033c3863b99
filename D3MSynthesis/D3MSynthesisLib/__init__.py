"""Everything of D3M that knows 3D Slicer. Nothing heavy is imported here."""
