"""Token weights of a real language model: `python -m recipes.smollm2_weights` (README.md beside this file)."""
