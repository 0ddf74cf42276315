"""Kill a training run at random moments, resume it each time, and compare it with one that nobody disturbed.

    python recipes/chaos/chaos.py --kills 20 --seed 1 --out outputs/chaos

The demo's run (recipe=demo_cpu, a checkpoint every step) is started again and again in one folder. Each life is ended
by SIGKILL in a part of a step that the seed chooses: rollouts, head pass, update, checkpoint or dump. In turn it takes
all processes at once, as a machine that loses power; the driver alone, whose other processes have to notice; or the
actor's worker alone, after which the driver has to end the run and say why. The last life runs to the end. kills.csv
has one line per kill. The script may be ended at any time, or ends itself with --minutes; the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq

from verl_twgrpo.files import write_csv
from verl_twgrpo.run_folder import last_step

HERE = Path(__file__).resolve().parent
PARTS = ("rollouts", "head pass", "update", "checkpoint", "dump")
VICTIMS = ("everything", "driver", "worker")
MARK = "CHAOS_LIFE"
# Ray's name for the process of a rank
WORKER = "ray::WorkerDict"
SUMMARY, CAUSE = "The run ended before it was done.", "Why it ended: "
# the end of one process is noticed by the others within this time, or they are orphans
PATIENCE = 180.0


@dataclass(frozen=True)
class Moment:
    """When a life ends: the part of a step, which of its steps, how far into the part (0 to 1), and who is killed."""

    part: str
    step: int
    share: float
    victims: str


@dataclass(frozen=True)
class Kill:
    """What a kill met, and what came of it.

    open_parts: those that were under way. finished, named: the last step whose checkpoint had been written, and the
    step of the last whole checkpoint. noticed_s: seconds until the last process was gone. cause: what the exit summary
    says, where a driver was there to write one. resumed_at: the step at which the next life began; None until it did.
    """

    number: int
    part: str
    victims: str
    open_parts: str
    finished: int
    named: int
    orphans: int
    noticed_s: float
    cause: str
    resumed_at: int | None

    @property
    def lost_nothing(self) -> bool:
        said = self.cause != "" or self.victims != "worker"
        return self.finished <= self.named and self.resumed_at == self.named + 1 and not self.orphans and said


def read_kills(path: Path) -> list[Kill]:
    """The lines of a kills.csv; none if it is not there."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    read = dict.fromkeys(("number", "finished", "named", "orphans"), int) | {
        "noticed_s": float,
        "resumed_at": lambda text: int(text) if text else None,
    }
    return [Kill(**{name: read.get(name, str)(text) for name, text in row.items()}) for row in rows]


def moments(kills: int, seed: int) -> list[Moment]:
    """Each part as often as the others, in an order of the seed's."""
    rng = random.Random(seed)
    parts = [part for _ in range(-(-kills // len(PARTS))) for part in rng.sample(PARTS, len(PARTS))][:kills]
    return [Moment(part, rng.choice((1, 2)), rng.random(), VICTIMS[k % len(VICTIMS)]) for k, part in enumerate(parts)]


class Noted(NamedTuple):
    """A line of phases.py: a part of a step began or ended."""

    at: float
    edge: str
    part: str
    step: int | None


def read_phases(path: Path) -> list[Noted]:
    """Every line that is whole."""
    if not path.is_file():
        return []
    lines = [line.split("\t") for line in path.read_text().split("\n")[:-1]]
    return [Noted(float(at), edge, part, int(step) if step else None) for at, edge, part, step in lines]


def under_way(phases: Sequence[Noted]) -> list[str]:
    """Parts that began and did not end."""
    balance = dict.fromkeys(PARTS, 0)
    for noted in phases:
        balance[noted.part] += 1 if noted.edge == "begin" else -1
    return [part for part, count in balance.items() if count > 0]


def typical_seconds(phases: Sequence[Noted], part: str, otherwise: float = 0.2) -> float:
    """How long the part took when it was shortest: the first of a life takes longer."""
    begins = [noted.at for noted in phases if (noted.part, noted.edge) == (part, "begin")]
    ends = [noted.at for noted in phases if (noted.part, noted.edge) == (part, "end")]
    return min((end - begin for begin, end in zip(begins, ends, strict=False)), default=otherwise)


def last_finished(folder: Path) -> int:
    """The last step whose checkpoint a life of the run has written, 0 if none has."""
    noted = [one for path in folder.glob("phases_*.tsv") for one in read_phases(path)]
    return max((one.step or 0 for one in noted if (one.edge, one.part) == ("end", "checkpoint")), default=0)


def run_command(folder: Path, demo: str, steps: int, overrides: Sequence[str]) -> list[str]:
    return [
        sys.executable, "-m", "verl.trainer.main_ppo", "algorithm=tw_grpo", "recipe=demo_cpu", f"demo_dir={demo}",
        f"algorithm.tw_grpo.dump_dir={folder}/tw_grpo", f"trainer.default_local_dir={folder}/checkpoints",
        f"trainer.rollout_data_dir={folder}/rollouts", f"trainer.validation_data_dir={folder}/validation",
        "trainer.logger=[console]", "trainer.val_before_train=False", "trainer.test_freq=-1",
        "trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=1", f"trainer.total_training_steps={steps}",
        "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8", *overrides,
    ]  # fmt: skip


class Life:
    """One start of the run, with a mark in the environment of whatever it starts."""

    def __init__(self, folder: Path, demo: str, steps: int, overrides: Sequence[str], phases: Path) -> None:
        self.mark, self.phases, self.log = uuid.uuid4().hex, phases, folder / "log.txt"
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        watch = {"VERL_USE_EXTERNAL_MODULES": "phases", "CHAOS_PHASES": str(phases), "PYTHONPATH": path}
        with open(self.log, "a") as log:
            self.log_begins = log.tell()
            self.process = subprocess.Popen(
                run_command(folder, demo, steps, overrides),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | watch | {MARK: self.mark},
            )

    def alive(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def wait_for(self, part: str, step: int) -> list[Noted]:
        """Until the part begins for the ``step``-th time in this life; returns what was noted so far."""
        while True:
            seen = read_phases(self.phases)
            if sum((noted.edge, noted.part) == ("begin", part) for noted in seen) >= step:
                return seen
            if self.process.poll() is not None:
                raise SystemExit(f"the run ended by itself before {part}; see {self.log}")
            time.sleep(0.01)

    def kill(self, victims: str) -> tuple[list[str], int, float]:
        """Returns what was under way, how many processes outlived the victim, and for how long the last one did.

        Those that outlive it for PATIENCE are orphans, and are killed as well.
        """
        if victims == "everything":
            struck = under_way(read_phases(self.phases))
            # until nobody is left: what a process has just started may not have been on the list
            while processes := list(self.alive()):
                for process in processes:
                    _end(process)
                self.process.poll()
            return struck, 0, 0.0
        if victims == "worker":
            _end(next(process for process in self.alive() if " ".join(process.cmdline()).startswith(WORKER)))
        else:
            self.process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        struck = under_way(read_phases(self.phases))
        while (left := list(self.alive())) and time.monotonic() < began + PATIENCE:
            self.process.poll()
            time.sleep(0.5)
        noticed = time.monotonic() - began
        for process in left:
            with suppress(psutil.NoSuchProcess):
                print(f"still there: {process.pid} {' '.join(process.cmdline())[:100]}", flush=True)
            _end(process)
        self.process.wait()
        return struck, len(left), noticed

    def last_words(self) -> str:
        """The line of the exit summary that says why the life ended; empty if its driver could not write one."""
        with open(self.log, errors="replace") as log:
            log.seek(self.log_begins)
            _, _, summary = log.read().rpartition(SUMMARY)
        return next((line.removeprefix(CAUSE) for line in summary.splitlines() if line.startswith(CAUSE)), "")


def _end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def data_order(folder: Path) -> dict[int, list[str]]:
    """The questions of every step, in their order, from the dumps."""
    order = {}
    for path in sorted((folder / "tw_grpo").glob("step_*.parquet")):
        rows = pq.read_table(path, columns=["step", "id"]).to_pylist()
        order[rows[0]["step"]] = [*dict.fromkeys(row["id"] for row in rows)]
    return order


def resumed_at(life: Life) -> int | None:
    """The step at which a life began; None if it did not come to one."""
    return next((noted.step for noted in read_phases(life.phases) if noted.step is not None), None)


def live(folder: Path, demo: str, steps: int, overrides: Sequence[str], number: int, moment: Moment | None) -> None:
    """One life of the run in ``folder``: to its end, or until ``moment``.

    What it says of the kill before, the step at which it resumed, is written to kills.csv as it ends, however it ends.
    """
    kills = read_kills(folder / "kills.csv")
    phases = folder / f"phases_{number:02d}.tsv"
    phases.unlink(missing_ok=True)
    life = Life(folder, demo, steps, overrides, phases)
    try:
        if moment is None:
            if life.process.wait() != 0:
                raise SystemExit(f"the last life failed; see {life.log}")
        else:
            life.wait_for(moment.part, moment.step)
            seen = [noted for path in sorted(folder.glob("phases_*.tsv")) for noted in read_phases(path)]
            time.sleep(moment.share * typical_seconds(seen, moment.part))
            struck, orphans, seconds = life.kill(moment.victims)
            kills.append(
                Kill(
                    number + 1, moment.part, moment.victims, ", ".join(struck) or "between", last_finished(folder),
                    last_step(folder / "checkpoints"), orphans, round(seconds, 1), life.last_words(), None,
                )
            )  # fmt: skip
    finally:
        life.kill("everything")
        if number and kills[number - 1].resumed_at is None:
            kills[number - 1] = replace(kills[number - 1], resumed_at=resumed_at(life))
            print(kills[number - 1], "" if kills[number - 1].lost_nothing else "NOT WELL", flush=True)
        write_csv(folder / "kills.csv", map(asdict, kills))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no life later than this")
    parser.add_argument("--out", type=Path, default=Path("outputs/chaos"), help="a new folder, or one to go on in")
    parser.add_argument("--demo", default="outputs/demo", help="what `verl-twgrpo demo prepare --out` made")
    parser.add_argument("overrides", nargs="*", help="further settings of the run, as KEY=VALUE")
    args = parser.parse_args()
    # so that the life that is under way ends too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    until = time.monotonic() + 60 * args.minutes
    killed, undisturbed = (args.out.absolute() / name for name in ("killed", "undisturbed"))
    chosen = moments(args.kills, args.seed)
    # a kill that comes a little late lets its life finish one step more
    steps = sum(moment.step for moment in chosen) + 2
    for folder, lives in ((killed, [*chosen, None]), (undisturbed, [None])):
        folder.mkdir(parents=True, exist_ok=True)
        for number, moment in enumerate(lives):
            if number < len(read_kills(folder / "kills.csv")) or last_step(folder / "checkpoints") == steps:
                continue
            if time.monotonic() > until:
                print("the same command goes on from here", flush=True)
                return 3
            live(folder, args.demo, steps, args.overrides, number, moment)
    kills = read_kills(killed / "kills.csv")
    same = data_order(killed) == data_order(undisturbed)
    lost = [kill.number for kill in kills if not kill.lost_nothing]
    print(f"{len(kills)} kills; not well: {lost or 'none'}; same data in the same order: {same}")
    return 0 if same and not lost and len(data_order(killed)) == steps else 1


if __name__ == "__main__":
    sys.exit(main())
