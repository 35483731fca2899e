"""What is at work in a run folder: training and pruning, from a recipe to a result."""
