"""The report as a page: a static site that opens from disk, with every plot, group, response and validation of runs."""
