"""A checkpoint is deleted only once the tracker file names a later one.

With ``max_actor_ckpt_to_keep=1`` verl 0.9.1 deletes the last checkpoint's weights as soon as the next one's are written
(``BaseCheckpointManager.register_checkpoint``), before the trainer writes that one's data and names it in
``latest_checkpointed_iteration.txt``. A run that dies in between has a tracker that names a checkpoint without weights,
and cannot resume. Here the last one stays until the next save begins, which deletes all but the newest: at no time is
more on disk than in verl while it saves. The tracker itself is written in place; if the run dies between its emptying
and its writing, all of the newest checkpoint is there, as the tracker comes last.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.run_folder import TRACKER, named_checkpoint


def keep_until_named(checkpoint_manager: ModuleType) -> None:
    """For ``verl.utils.checkpoint.checkpoint_manager``."""
    manager = checkpoint_manager.BaseCheckpointManager
    # before a save, two kept are pruned to one; after it, the one that the tracker names stays beside the new one
    wrapt.wrap_function_wrapper(manager, "ensure_checkpoint_capacity", _prune)
    wrapt.wrap_function_wrapper(manager, "register_checkpoint", _register)
    wrapt.wrap_function_wrapper(checkpoint_manager, "find_latest_ckpt_path", _find)


def _prune(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    (keep,) = args or kwargs.values()
    return wrapped(2 if keep == 1 else keep)


def _register(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    def register(new_path: str, max_ckpt_to_keep: int | None) -> Any:
        return wrapped(new_path, 2 if max_ckpt_to_keep == 1 else max_ckpt_to_keep)

    return register(*args, **kwargs)


def _find(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    folder = args[0] if args else kwargs["path"]
    tracker = Path(folder or "") / TRACKER
    if folder is None or not tracker.is_file() or tracker.read_text().strip():
        return wrapped(*args, **kwargs)
    named = named_checkpoint(folder)
    return str(named) if named is not None and named.is_dir() else None


WORKAROUND = Workaround(
    module="verl.utils.checkpoint.checkpoint_manager",
    apply=keep_until_named,
    because="deletes the last checkpoint before the next one is named, so that a run that dies then cannot resume",
    versions="verl==0.9.1",
    link="patches/0010-checkpoint-order.patch",
)
