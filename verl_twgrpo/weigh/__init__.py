"""Token weightings of a run's responses, recomputed from its dump and compared."""
