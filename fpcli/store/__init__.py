"""What commands leave on disk and read again: run folders, events, checkpoints, models."""
