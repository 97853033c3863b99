"""Many cases; one bad case stops nothing."""
