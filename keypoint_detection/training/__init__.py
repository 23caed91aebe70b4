"""Control a run: checks before it starts, its folder and checkpoints, resuming, and stopping."""
