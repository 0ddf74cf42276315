"""What a run will be, from its configuration alone, and whether it can work."""
