"""A result made into something that a person opens: files, provenance, figure."""
