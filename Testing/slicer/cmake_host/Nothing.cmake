# Of what Slicer includes here nothing is needed to install Python files.
