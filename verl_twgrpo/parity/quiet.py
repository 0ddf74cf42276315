"""Keep other libraries' chatter off a screen, unless something goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def kept_quiet() -> Iterator[None]:
    """Hold back what this process and its libraries write to stdout and stderr; an unforeseen error brings it out.

    An error that is one sentence (``ValueError``, ``OSError``) stands for itself.
    """
    _flush()
    kept = [os.dup(1), os.dup(2)]
    with TemporaryFile() as chatter:
        for number in (1, 2):
            os.dup2(chatter.fileno(), number)
        try:
            yield
        except (ValueError, OSError):
            raise
        except BaseException:
            _flush()
            chatter.seek(0)
            os.write(kept[1], chatter.read())
            raise
        finally:
            _flush()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
