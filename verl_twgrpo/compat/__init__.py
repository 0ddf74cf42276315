"""One module per upstream bug that is worked around; ../plugin.py says when each is applied."""
