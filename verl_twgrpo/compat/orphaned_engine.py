"""vLLM's engine ends with the process that started it.

``EngineCore`` watches its workers and they watch it, but nothing in it watches its own parent: when that is killed, or
leaves without running its exit handlers, as Ray's workers do when their raylet is gone, engine and workers live on and
keep their memory. https://github.com/vllm-project/vllm/issues/55510; mended in the open
https://github.com/vllm-project/vllm/pull/55846. Here a thread of the engine waits for the parent's end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

from verl_twgrpo.compat.workaround import Workaround

MODULE = "vllm.v1.engine.core"
# vLLM names the process so, or EngineCore_DP0 (vllm/v1/engine/utils.py)
PROCESS = "EngineCore"
THREAD = "verl_twgrpo_parent_watch"
# for vLLM's own shutdown, until the engine is killed
GRACE_S = 5.0


def end_with_parent(_: Any = None) -> bool:
    """Watch the parent if this process is vLLM's engine; whether it is one. Asked again, nothing more happens."""
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith(PROCESS):
        return False
    if THREAD not in (thread.name for thread in threading.enumerate()):
        threading.Thread(target=_wait_and_end, args=(parent,), name=THREAD, daemon=True).start()
    return True


def _wait_and_end(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


WORKAROUND = Workaround(
    module=MODULE,
    apply=end_with_parent,
    because="leaves its engine and workers running when the process that started them is killed",
    versions="vllm>=0.24,<=0.28",
    link="https://github.com/vllm-project/vllm/issues/55510",
)
