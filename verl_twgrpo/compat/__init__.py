"""One module per upstream bug, each ending in its ``WORKAROUND`` (workaround.py); ../plugin.py installs them.

A workaround is dropped by deleting its file here and its test, which is red as soon as the bug is gone.
"""
