"""The machine: files, locks, devices, the console, and text from outside."""
