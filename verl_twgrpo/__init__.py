"""TW-GRPO (arXiv 2505.24718) as a one-flag option of verl."""

__version__ = "0.1.0"
