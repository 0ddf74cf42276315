"""Hydra groups that the plugin adds to verl's configuration: ``algorithm=NAME`` and ``recipe=NAME``."""
