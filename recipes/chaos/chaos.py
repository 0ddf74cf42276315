"""Kill a training run at random moments, resume it each time, and compare it with one that nobody disturbed.

    python recipes/chaos/chaos.py --kills 20 --seed 1 --out outputs/chaos

The demo's run (recipe=demo_cpu, a checkpoint every step) is started again and again in one folder. Each life is ended
by SIGKILL in a part of a step that the seed chooses: rollouts, head pass, update, checkpoint or dump; every other time
all of its processes at once, as a machine that loses power, else the driver alone, whose other processes have to
notice. The last life runs to the end. kills.csv has one line per kill.
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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq

from verl_twgrpo.run_folder import last_step

HERE = Path(__file__).resolve().parent
PARTS = ("rollouts", "head pass", "update", "checkpoint", "dump")
MARK = "CHAOS_LIFE"
# an end of the driver alone is noticed by the others within this time, or they are orphans
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

    open_parts: those that were under way. named: the step of the last whole checkpoint. resumed_at: the step at which
    the next life began.
    """

    number: int
    part: str
    victims: str
    open_parts: str
    named: int
    resumed_at: int
    orphans: int

    @property
    def lost_nothing(self) -> bool:
        return self.resumed_at == self.named + 1 and not self.orphans


def moments(kills: int, seed: int) -> list[Moment]:
    """Each part as often as the others, in an order of the seed's."""
    rng = random.Random(seed)
    parts = [part for _ in range(-(-kills // len(PARTS))) for part in rng.sample(PARTS, len(PARTS))][:kills]
    victims = ("everything", "driver")
    return [Moment(part, rng.choice((1, 2)), rng.random(), victims[k % 2]) for k, part in enumerate(parts)]


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
    """How long the part took the last time that it ended."""
    begins = [noted.at for noted in phases if (noted.part, noted.edge) == (part, "begin")]
    ends = [noted.at for noted in phases if (noted.part, noted.edge) == (part, "end")]
    return ends[-1] - begins[len(ends) - 1] if ends else otherwise


class Life:
    """One start of the run, with a mark in the environment of whatever it starts."""

    def __init__(self, folder: Path, demo: str, steps: int, overrides: Sequence[str], phases: Path) -> None:
        self.mark, self.phases, self.log = uuid.uuid4().hex, phases, folder / "log.txt"
        command = [
            sys.executable, "-m", "verl.trainer.main_ppo", "algorithm=tw_grpo", "recipe=demo_cpu", f"demo_dir={demo}",
            f"algorithm.tw_grpo.dump_dir={folder}/tw_grpo", f"trainer.default_local_dir={folder}/checkpoints",
            f"trainer.rollout_data_dir={folder}/rollouts", f"trainer.validation_data_dir={folder}/validation",
            "trainer.logger=[console]", "trainer.val_before_train=False", "trainer.test_freq=-1",
            "trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=1", f"trainer.total_training_steps={steps}",
            "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8", *overrides,
        ]  # fmt: skip
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        watch = {"VERL_USE_EXTERNAL_MODULES": "phases", "CHAOS_PHASES": str(phases), "PYTHONPATH": path}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | watch | {MARK: self.mark}
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

    def kill(self, victims: str) -> tuple[list[str], int]:
        """Returns what was under way, and how many processes outlived a driver that was killed alone.

        Those are killed as well. Until they notice, they go on.
        """
        if victims == "everything":
            # until nobody is left: what a process has just started may not have been on the list
            while processes := list(self.alive()):
                for process in processes:
                    _end(process)
                self.process.poll()
            return under_way(read_phases(self.phases)), 0
        self.process.send_signal(signal.SIGKILL)
        struck = under_way(read_phases(self.phases))
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        while (left := list(self.alive())) and time.monotonic() < deadline:
            time.sleep(0.5)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                print(f"still there: {process.pid} {' '.join(process.cmdline())[:100]}", flush=True)
            _end(process)
        return struck, len(left)


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


def run(folder: Path, demo: str, kills: Sequence[Moment], steps: int, overrides: Sequence[str]) -> list[Kill]:
    """All lives of a run in ``folder``; the last one ends by itself."""
    folder.mkdir(parents=True)
    met: list[tuple[Moment, str, int, int]] = []
    begun: list[int] = []
    for number, moment in enumerate([*kills, None]):
        phases = folder / f"phases_{number:02d}.tsv"
        life = Life(folder, demo, steps, overrides, phases)
        if moment is None:
            if life.process.wait() != 0:
                raise SystemExit(f"the last life failed; see {life.log}")
        else:
            seen = life.wait_for(moment.part, moment.step)
            time.sleep(moment.share * typical_seconds(seen, moment.part))
            struck, orphans = life.kill(moment.victims)
            met.append((moment, ", ".join(struck) or "between", last_step(folder / "checkpoints"), orphans))
        begun.append(next(noted.step for noted in read_phases(phases) if noted.step is not None))
        print(f"life {number}: began at step {begun[-1]}; {'to the end' if moment is None else met[-1]}", flush=True)
    return [
        Kill(number, moment.part, moment.victims, open_parts, named, resumed_at, orphans)
        for number, ((moment, open_parts, named, orphans), resumed_at) in enumerate(zip(met, begun[1:], strict=True), 1)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/chaos"), help="a new folder")
    parser.add_argument("--demo", default="outputs/demo", help="what `verl-twgrpo demo prepare --out` made")
    parser.add_argument("overrides", nargs="*", help="further settings of the run, as KEY=VALUE")
    args = parser.parse_args()
    out = args.out.absolute()
    steps = 2 * args.kills + 2
    kills = run(out / "killed", args.demo, moments(args.kills, args.seed), steps, args.overrides)
    run(out / "undisturbed", args.demo, [], steps, args.overrides)
    with open(out / "kills.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Kill)])
        writer.writeheader()
        writer.writerows(asdict(kill) for kill in kills)
    same = data_order(out / "killed") == data_order(out / "undisturbed")
    lost = [kill.number for kill in kills if not kill.lost_nothing]
    print(
        f"{len(kills)} kills; steps lost or processes left after {lost or 'none'}; same data in the same order: {same}"
    )
    return 0 if same and not lost and len(data_order(out / "killed")) == steps else 1


if __name__ == "__main__":
    sys.exit(main())
