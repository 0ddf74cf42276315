"""The task types: a file each, ending in the function that scores it. ``registry.load_own_tasks`` imports them all."""
