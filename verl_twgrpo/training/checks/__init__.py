"""What would go wrong in a run, said on the driver before Ray starts: one sentence, the key, what to do."""

from __future__ import annotations

from omegaconf import DictConfig

from .registry import CHECKS, check, load_all, run_checks
from .settings import check_settings, read_settings

load_all(__name__, __path__)

__all__ = ["CHECKS", "check", "check_training_config", "read_settings"]


def check_training_config(config: DictConfig, absent: list[str] | None = None) -> list[str]:
    """Run every check on a composed configuration that has ``algorithm.tw_grpo``; one without it is not checked.

    Returns notes: what is worth knowing, and stands against nothing. With a list ``absent``, data files that are not
    there yet go into it and are no error.

    Raises:
        ValueError: with the key's name, and what to do.
        FileNotFoundError: for a data file or a video that is not there.
    """
    if not check_settings(config):
        return []
    weighted = read_settings(config.algorithm.tw_grpo).weighted
    notes = run_checks(config, weighted=weighted, reads_files=False)
    return notes + run_checks(config, weighted=weighted, reads_files=True, absent=absent)
