"""Floor 3: recipes, the training loop, checkpoints, runs, and the devices they run on; knows floors 1 and 2."""
