"""What a run leaves on disk: verl's checkpoints and TensorBoard's event files, each read by one rule."""

from __future__ import annotations

from pathlib import Path

TRACKER = "latest_checkpointed_iteration.txt"
"""In the folder of the checkpoints: the step of the last whole one (verl/utils/checkpoint/checkpoint_manager.py)."""


def named_checkpoint(folder: str | Path) -> Path | None:
    """The folder ``global_step_N`` that the tracker file, which verl writes last, names; None where there is none yet.

    verl writes it in place. If it is empty the run died in the middle of that, and the newest checkpoint is whole.
    """
    tracker = Path(folder) / TRACKER
    if not tracker.is_file():
        return None
    step = tracker.read_text().strip()
    if not step:
        step = str(
            max((int(there.name.rpartition("_")[2]) for there in tracker.parent.glob("global_step_*")), default=0)
        )
    return (tracker.parent / f"global_step_{step}").absolute()


def last_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint that verl would resume from; None if there is none, or the one that is named has no weights."""
    checkpoint = named_checkpoint(folder)
    return checkpoint if checkpoint is not None and (checkpoint / "actor").is_dir() else None


def last_step(folder: str | Path) -> int:
    """The step of ``last_checkpoint``, 0 where there is none."""
    checkpoint = last_checkpoint(folder)
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("_")[2])


def event_files(folder: str | Path) -> list[Path]:
    """TensorBoard's event files at any depth; a resumed run has one per start."""
    return sorted(path for path in Path(folder).rglob("events.out.tfevents.*") if path.is_file())


def read_scalars(folder: str | Path) -> dict[str, dict[int, float]]:
    """Every logged scalar below ``folder`` by name and step, steps in order.

    A resumed run logs some steps again: the value that was written last counts, whichever file it is in.

    Raises:
        FileNotFoundError: there is no event file.
        ImportError: the package tensorboard is not installed.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = event_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder}: no tensorboard events; run with trainer.logger=[console,tensorboard]")
    found: dict[str, list[tuple[float, int, float]]] = {}
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, []).extend((e.wall_time, e.step, e.value) for e in events.Scalars(name))
    by_step = {name: {step: value for _, step, value in sorted(values)} for name, values in found.items()}
    return {name: dict(sorted(values.items())) for name, values in by_step.items()}
