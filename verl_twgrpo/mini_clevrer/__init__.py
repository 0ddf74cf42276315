"""A benchmark that a CPU can train on: the world, its model, the demo, the study."""
