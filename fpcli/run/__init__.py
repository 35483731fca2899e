"""What is at work in a run folder: training, pruning, unlearning, from a recipe to a result."""
