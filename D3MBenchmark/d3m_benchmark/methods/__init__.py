"""The methods that can be trained: one short file each."""
