"""The study on mini-CLEVRER: arms of the paper's claim from one start model, on a CPU (recipes/mini_clevrer)."""
