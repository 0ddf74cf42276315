"""verl's engines with the head pass inside."""
