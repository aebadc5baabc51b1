"""Floor 3: recipes, the training loop, checkpoints, runs and devices; imports floors 1 and 2 only."""
