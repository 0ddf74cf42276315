"""Runs through the trainer's own writer, with texts, videos and settings that a page shows."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.report.site.groups import VIEW
from verl_twgrpo.training.dump import write_settings, write_step
from verl_twgrpo.video.cache import FrameCache

MARKUP = "<script>window.hacked = 1</script>"
FRAMES, SIZE = 4, 28


class Column(list):
    tolist = unbind = lambda self: list(self)


class Characters:
    """A token a character."""

    def decode(self, ids, skip_special_tokens=False):
        return "".join(map(chr, ids))


def write_groups(run: Path, step: int, groups: list[dict], view: str | None = None) -> Path:
    """A step's dump. A group: id, question, truth, texts and rewards; source and task if it likes."""
    texts = [text for group in groups for text in group["texts"]]
    rewards = [reward for group in groups for reward in group["rewards"]]
    of_row = [group for group in groups for _ in group["texts"]]
    lengths = [len(text) for text in texts]

    def jagged(value):
        return torch.nested.as_nested_tensor([value(length) for length in lengths], layout=torch.jagged)

    scores = torch.zeros(len(texts), max(lengths))
    scores[:, 0] = torch.tensor(rewards)
    data = {
        "responses": torch.nested.as_nested_tensor(
            [torch.tensor(list(map(ord, text))) for text in texts], layout=torch.jagged
        ),
        "entropy": jagged(lambda n: torch.linspace(0, 1, n)),
        "old_log_probs": jagged(lambda n: -torch.linspace(0.5, 1, n)),
        "rollout_log_probs": jagged(lambda n: -torch.linspace(0.5, 1.01, n)),
        "advantages": jagged(lambda n: torch.full((n,), 0.25)),
        "rm_scores": scores,
        "reward_model": Column([{"ground_truth": group["truth"]} for group in of_row]),
        "extra_fields": Column(
            {
                "reward_extra_info": {
                    "accuracy": float(reward >= 2),
                    "soft_accuracy": min(1.0, reward / 2),
                    "benchmark": group.get("source", "clevrer"),
                    "task": group.get("task", "multiple_choice"),
                }
            }
            for group, reward in zip(of_row, rewards, strict=True)
        ),
        "extra_info": Column([{"id": group["id"], "question": group["question"]} for group in of_row]),
    }
    made, row = [], 0
    for number, group in enumerate(groups):
        part = lengths[row : row + len(group["texts"])]
        columns = {"divergence": [torch.arange(n).float() for n in part]}
        if view:
            columns[VIEW + view] = [-torch.linspace(0.5, 3, n) for n in part]
        masks = [torch.ones(n, dtype=torch.bool) for n in part]
        one = Group(f"u{step}_{number}", list(range(row, row + len(part))), masks, columns, step=step)
        one.weights = [1 + torch.arange(n) / 100 for n in part]
        made.append(one)
        row += len(part)
    path = run / "tw_grpo" / f"step_{step:06d}.parquet"
    write_step(path, step, data, made, Characters())
    lines = [
        {"input": f"user\n{group['question']}\nassistant\n", "score": 1.0, "uid": f"u{step}_{number}_0_0"}
        for number, group in enumerate(groups)
    ]
    write_lines(run / "rollouts" / f"{step}.jsonl", lines)
    return path


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_questions(folder: Path, questions: dict[str, str]) -> tuple[Path, Path]:
    """A parquet file as verl reads it, and a cache with the frames of its first video; the others are nowhere."""
    import pyarrow
    import pyarrow.parquet

    video = {"nframes": FRAMES, "min_pixels": SIZE * SIZE, "max_pixels": SIZE * SIZE}
    rows = [
        {
            "data_source": "clevrer",
            "videos": [video | {"video": f"/nowhere/{id}.mp4", "digest": f"{number:064x}"}],
            "extra_info": {"id": id, "question": text, "options": ["red", MARKUP], "question_type": "descriptive"},
        }
        for number, (id, text) in enumerate(questions.items())
    ]
    frames = torch.arange(FRAMES, dtype=torch.uint8).mul(60).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE).contiguous()
    metadata = {"fps": 10.0, "frames_indices": [0, 10, 20, 30], "total_num_frames": 40}
    FrameCache(folder / "cache").put(rows[0]["videos"][0], frames, metadata, [])
    path = folder / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path, folder / "cache"


def write_run_settings(run: Path, **settings) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create({"ray_kwargs": {"env": {"WANDB_API_KEY": "secret"}}})
    for name, value in settings.items():
        OmegaConf.update(config, name.replace("__", "."), value, force_add=True)
    write_settings(run / "tw_grpo" / "settings.yaml", config)


def write_scalars(run: Path, scalars: dict[str, dict[int, float]]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))
    for metric, values in scalars.items():
        for step, value in values.items():
            writer.add_scalar(metric, value, step)
    writer.close()


def two_runs(folder: Path) -> list[Path]:
    """Two runs of three steps on the same questions, with markup wherever a text can stand."""
    questions = {f"q{k}": f"Question {k}? {MARKUP}" for k in range(3)}
    data, cache = write_questions(folder, questions)
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text('{"vision_config": {"patch_size": 14, "tokens_per_second": 2}}')
    runs = []
    for name, alpha in (("<script>window.hacked = 1<", 0.7), ("other", 0.0)):
        run = folder / name / "script>"
        for step in (1, 2, 3):
            groups = [
                {
                    "id": id,
                    "question": text,
                    "truth": "A",
                    "texts": [
                        f"<think>{MARKUP}</think><answer>A</answer>",
                        "<answer>B</answer>",
                        "<answer></answer>" if number == 2 else "<answer>A</answer>",
                    ],
                    "rewards": [2.0, 2.0, 2.0] if number == 1 else [0.0] * 3 if number == 2 else [2.0, 0.5, 2.0],
                    "source": "star" if number == 2 else "clevrer",
                }
                for number, (id, text) in enumerate(questions.items())
            ]
            write_groups(run, step, groups, view="blank" if alpha else None)
        write_run_settings(
            run,
            algorithm__tw_grpo__alpha=alpha,
            data__train_files=str(data),
            data__frame_cache=str(cache),
            actor_rollout_ref__model__path=str(model),
            trainer__total_training_steps=3,
        )
        steps = {1: 0.5, 2: 0.75, 3: 1.0}
        write_scalars(run, {name: steps for name in ("critic/score/mean", "tw_grpo/contrast_blank", "timing_s/gen")})
        for step, answers in ((0, "BAB"), (2, "ABB")):
            rows = [
                {
                    "input": MARKUP,
                    "output": f"{MARKUP}<answer>{answer}</answer>",
                    "gts": "A",
                    "accuracy": float(answer == "A"),
                    "id": id,
                    "benchmark": "clevrer",
                }
                for id, answer in zip(questions, answers, strict=True)
            ]
            write_lines(run / "validation" / f"{step}.jsonl", rows)
        runs.append(run)
    return runs


def task_rows(step: int, *moments: str) -> list[dict]:
    """Answers to a question about two moments of ten seconds, and the step as an answer to how many are there: 3."""
    common = {"input": "q", "step": step, "benchmark": "own"}
    when = {"task": "temporal_grounding", "gts": json.dumps({"intervals": [[2, 6], [8, 10]], "duration": 10})}
    rows = [when | {"output": f"<answer>{moment}</answer>"} for moment in moments]
    rows.append({"task": "counting", "gts": "3", "output": f"<answer>{step}</answer>"})
    return [common | {"id": str(number)} | row for number, row in enumerate(rows)]


def write_task_run(run: Path) -> Path:
    """A run on rows of other tasks that was validated twice."""
    write_lines(run / "validation" / "0.jsonl", task_rows(0, "0 to 10", "soon"))
    write_lines(run / "validation" / "3.jsonl", task_rows(3, "2 to 6", "2 to 4"))
    return run
