"""Scans made into a case: checked, registered, the brain found."""
