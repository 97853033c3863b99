"""The command line. Each command is a thin call; torch is imported when it is needed."""
