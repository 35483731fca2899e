"""Runs: their folder, checkpoints and events, and the experiment that fills them."""
