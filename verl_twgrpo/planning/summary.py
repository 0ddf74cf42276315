"""The lines of a plan: label and text, in the order in which a run is thought about."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.data.parquet import TOKEN_PIXELS, FrameLimits
from verl_twgrpo.planning.gpu_memory import gpu_memory
from verl_twgrpo.planning.model import ModelSizes, model_sizes
from verl_twgrpo.planning.prompts import PromptCost, check_budget, prompt_cost
from verl_twgrpo.planning.resources import (
    checkpoint_bytes,
    group_tokens,
    logit_bytes,
    mask_bytes,
    pixel_bytes,
    training_state_bytes,
    waiting_bytes,
    weights_pass_bytes,
)
from verl_twgrpo.planning.steps import Steps, steps
from verl_twgrpo.rewards import Composition
from verl_twgrpo.rewards.manager import mixture_from_config, settings_from_config
from verl_twgrpo.training.batches import Batches, batches
from verl_twgrpo.training.checks import read_settings
from verl_twgrpo.training.checks.packed_groups import why_unpacked
from verl_twgrpo.training.settings import packed_groups_setting

Line = tuple[str, str]

# Section 4.1; for files that are not there yet
FRAMES = {"train_files": FrameLimits(), "val_files": FrameLimits(max_pixels=256 * TOKEN_PIXELS)}


def plan_lines(config: DictConfig) -> tuple[list[Line], list[str]]:
    """The plan of a composed configuration, and what is worth a warning. Raises ``ValueError`` naming the key."""
    ref, trainer = config.actor_rollout_ref, config.trainer
    training = not trainer.val_only
    sizes = model_sizes(ref.model, bool(ref.actor.freeze_vision_tower))
    context = ref.rollout.max_model_len
    if context is not None and context > sizes.context:
        raise ValueError(f"actor_rollout_ref.rollout.max_model_len={context}: the model takes {sizes.context} tokens")
    costs = {}
    for key in ("train_files", "val_files") if training else ("val_files",):
        files = config.data[key]
        files = list(files) if OmegaConf.is_list(files) else [files]
        costs[key] = prompt_cost(files, FRAMES[key], config.data.image_patch_size, sizes.folder)
        check_budget(f"data.{key}", costs[key], ref.rollout.prompt_length)

    gpus = f"{trainer.nnodes} x {trainer.n_gpus_per_node} GPU" + "s" * (trainer.nnodes * trainer.n_gpus_per_node > 1)
    verb = "trains" if training else "evaluates"
    lines = [("run", f"{trainer.experiment_name}, {verb} {ref.model.path} on {gpus}")]
    notes = []
    if training:
        made, ahead = batches(config), steps(config, costs["train_files"].rows)
        lines += [*_objective(config, made), *_batches(config, made)]
        notes += [*_batch_notes(config, made), *_step_notes(config, ahead)]
    lines += _lengths(config, costs, sizes)
    if context is None:
        notes.append(f"actor_rollout_ref.rollout.max_model_len is not set: vLLM makes room for {sizes.context} tokens")
    if training:
        lines += [*_packing(config, made, costs["train_files"], sizes), *_memory(config, made, sizes)]
    lines += _pixels(config, costs)
    if training:
        lines += _steps(config, ahead, sizes)
    lines += _validation(config, costs["val_files"])
    return lines, notes


def _weighted(config: DictConfig) -> bool:
    node = OmegaConf.select(config, "algorithm.tw_grpo")
    return node is not None and read_settings(node).weighted


def _objective(config: DictConfig, made: Batches) -> Iterator[Line]:
    actor = config.actor_rollout_ref.actor
    weights = "no token weights"
    if _weighted(config):
        names = ("divergence", "alpha", "weight", "placement", "scope")
        weights = "token weights (" + ", ".join(f"{name} {config.algorithm.tw_grpo[name]}" for name in names) + ")"
    yield "objective", f"{weights}, {actor.loss_agg_mode}"
    alone, later = "idle: with one update per step the ratio is 1", "from the second update of a step on"
    when = alone if made.updates == 1 else later
    yield "clip", f"{actor.clip_ratio_low} below, {actor.clip_ratio_high} above; {when}"
    if config.reward.reward_manager.name == "multi_answer":
        settings = settings_from_config(config)
        yield "reward", f"{settings.mode} accuracy + {settings.format_weight:g} x format"
    elif config.reward.reward_manager.name == "video_tasks":
        common = Composition(**mixture_from_config(config).common)
        yield (
            "reward",
            f"by the task of each row: {common.accuracy_weight:g} x accuracy + {common.format_weight:g} x format",
        )


def _batches(config: DictConfig, made: Batches) -> Iterator[Line]:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    yield (
        "batch",
        f"{made.prompts} prompts x {made.n} responses = {made.prompts * made.n} rows per step; "
        f"{made.rows_per_rank} rows ({_count(made.groups_per_rank, 'group')}) per rank, "
        f"{_count(made.ranks, 'data-parallel rank')}",
    )
    micro = f"{actor.ppo_micro_batch_size_per_gpu} rows"
    if actor.use_dynamic_bsz:
        full = actor.ppo_max_token_len_per_gpu // (rollout.prompt_length + rollout.response_length)
        micro = f"{actor.ppo_max_token_len_per_gpu} tokens, that is {_count(full, 'row')} of full length"
    yield (
        "updates",
        f"{made.updates} per step, of {made.rows_per_update} rows, learning rate {actor.optim.lr:g}; a rank's "
        f"micro-batches of {micro}",
    )


def _batch_notes(config: DictConfig, made: Batches) -> Iterator[str]:
    if made.padding:
        mini = config.actor_rollout_ref.actor.ppo_mini_batch_size
        yield (
            f"verl adds {_count(made.padding, 'row')} of padding per step: data.train_batch_size={made.prompts} is "
            f"no multiple of actor_rollout_ref.actor.ppo_mini_batch_size={mini}"
        )


def _lengths(config: DictConfig, costs: dict[str, PromptCost], sizes: ModelSizes) -> Iterator[Line]:
    rollout = config.actor_rollout_ref.rollout
    context = rollout.max_model_len or sizes.context
    yield "lengths", f"prompt {rollout.prompt_length} + response {rollout.response_length} tokens, context {context}"
    for key, cost in costs.items():
        for kind, (fewest, most) in (("video", cost.video), ("image", cost.image)):
            if kind == "image" and not most:
                continue
            span = f"{most}" if fewest == most else f"{fewest} to {most}"
            how = "" if cost.measured else " at most, by the pixel limits"
            text = f"{rollout.prompt_length - most} of the prompt are left for its text"
            if cost.longest is not None:
                text = f"{cost.longest} in the longest prompt, its text included"
            found = f"{span} tokens{how}" if most else "none"
            yield f"{key.removesuffix('_files')} {kind}", f"{found}; {text}"


def _packing(config: DictConfig, made: Batches, cost: PromptCost, sizes: ModelSizes) -> Iterator[Line]:
    """Tokens of a group with its prompt once, against once per response; and what that takes of memory."""
    if "packed_groups" not in config.algorithm:
        return
    reason = why_unpacked(config)
    if packed_groups_setting(config.algorithm) == "false" or reason:
        yield "packed groups", f"off: every response runs its prompt ({reason or 'algorithm.packed_groups=false'})"
        return
    ref, n = config.actor_rollout_ref, made.n
    prompt = cost.longest or cost.visual or ref.rollout.prompt_length
    longest = ref.rollout.response_length
    parts = []
    for response in (longest, max(longest // 10, 1)):
        packed, unpacked = group_tokens(prompt, response, n)
        parts.append(f"of {response}: {packed} tokens in place of {unpacked} ({unpacked / packed:.1f} times fewer)")
    yield "packed groups", f"a prompt of {prompt} tokens and {n} responses {', '.join(parts)}; its video runs once"
    packed, unpacked = group_tokens(prompt, longest, n)
    logits = [_size(logit_bytes(positions, sizes.vocabulary)) for positions in (n * longest, unpacked)]
    yield (
        "packed memory",
        f"per group of full length logits of {logits[0]} in place of {logits[1]}, in as many micro-batches as its "
        f"{packed} tokens make; masks of up to {_size(mask_bytes(prompt, [longest]))} per length of response where "
        "flash-attn is missing",
    )


def _memory(config: DictConfig, made: Batches, sizes: ModelSizes) -> Iterator[Line]:
    ref = config.actor_rollout_ref
    if _weighted(config):
        logits = weights_pass_bytes(
            config.trainer.device, read_settings(config.algorithm.tw_grpo).tokens_per_chunk, made.n, sizes.vocabulary
        )
        waiting = waiting_bytes(made.n, ref.rollout.response_length, sizes.hidden)
        yield (
            "weights pass",
            f"{_size(logits)} of logits and buffers per rank, and up to {_size(waiting)} of hidden states per group "
            f"that waits ({made.groups_per_rank:g} per rank at most)",
        )
    engine = ref.actor.fsdp_config
    shards = made.ranks if engine.fsdp_size == -1 else engine.fsdp_size
    state = {name: number // shards for name, number in training_state_bytes(sizes, engine.model_dtype).items()}
    parts = ", ".join(f"{name} {_size(number)}" for name, number in state.items())
    yield "training state", f"{_size(sum(state.values()))} per rank {_place(engine)}: {parts}"
    if config.trainer.device != "cpu":
        need = gpu_memory(config, sizes, state)
        yield (
            "GPU memory",
            f"about {_size(need.needed)} per GPU, an estimate, never measured. Update: state {_size(need.state)}, "
            f"activations {_size(need.activations)} and logits {_size(need.logits)} of {need.tokens} tokens, "
            f"{_size(need.gathered)} for the head. Rollout: vLLM takes {need.share:.0%} of the GPU, "
            f"{_size(need.rollout_weights)} for weights, the rest for its cache, beside {_size(need.beside)} of state",
        )
    yield "parameters", f"{sizes.parameters:,}, {sizes.trainable / sizes.parameters:.0%} of them trained"


def _place(engine: DictConfig) -> str:
    if engine.offload_policy:
        return "on the host"
    moved = [name for name in ("param", "optimizer") if engine[f"{name}_offload"]]
    return "on the GPU" + (f" during updates ({' and '.join(moved)} on the host else)" if moved else "")


def _pixels(config: DictConfig, costs: dict[str, PromptCost]) -> Iterator[Line]:
    data, rollout = config.data, config.actor_rollout_ref.rollout
    known = [number for number in (data.val_batch_size, _validation_rows(config, costs["val_files"])) if number]
    batch = min(known, default=None)
    parts = []
    if "train_files" in costs:
        rows = data.train_batch_size * rollout.n
        parts.append(f"{_size(pixel_bytes(rows, costs['train_files'].visual, data.image_patch_size))} per step")
    if batch is not None:
        number = pixel_bytes(batch * rollout.val_kwargs.n, costs["val_files"].visual, data.image_patch_size)
        parts.append(f"{_size(number)} a validation batch of {batch}")
    yield "pixels", f"{' and '.join(parts) or 'those of all questions at once'} on the host, in TransferQueue"


def _steps(config: DictConfig, ahead: Steps, sizes: ModelSizes) -> Iterator[Line]:
    trainer, actor = config.trainer, config.actor_rollout_ref.actor
    last = "as many as the data gives" if ahead.last is None else str(ahead.last)
    yield "steps", last + ("" if ahead.per_epoch is None else f"; the data has {ahead.per_epoch} in one pass")
    if ahead.saves:
        one = checkpoint_bytes(sizes, actor.fsdp_config.model_dtype, list(actor.checkpoint.save_contents))
        yield (
            "checkpoints",
            f"{ahead.saves} (every {trainer.save_freq} steps) of {_size(one)}; up to {ahead.on_disk} at a time, "
            f"{_size(ahead.on_disk * one)}, in {trainer.default_local_dir}",
        )


def _step_notes(config: DictConfig, ahead: Steps) -> Iterator[str]:
    trainer = config.trainer
    if None not in (ahead.last, trainer.total_training_steps) and ahead.last < trainer.total_training_steps:
        yield (
            f"the run ends after step {ahead.last} of trainer.total_training_steps={trainer.total_training_steps}, as "
            f"trainer.total_epochs={trainer.total_epochs} goes no further through the data"
        )
    if ahead.first:
        yield (
            f"it resumes after step {ahead.first} from trainer.default_local_dir={trainer.default_local_dir}; with "
            "another trainer.experiment_name it is a run of its own"
        )
    if trainer.save_freq <= 0:
        yield f"trainer.save_freq={trainer.save_freq}: nothing is saved"


def _validation(config: DictConfig, cost: PromptCost) -> Iterator[Line]:
    trainer, values = config.trainer, config.actor_rollout_ref.rollout.val_kwargs
    rows = _validation_rows(config, cost)
    when = ["before the first step" if not trainer.val_only else "once"] if trainer.val_before_train else []
    if not trainer.val_only and trainer.test_freq > 0:
        when.append(f"every {trainer.test_freq} steps")
    # verl passes these on whatever do_sample says (trainer/ppo/v1/agent_loop_tq.py)
    decoding = f"temperature {values.temperature:g}, top_p {values.top_p:g}"
    kept = "are not kept" if trainer.validation_data_dir is None else f"in {trainer.validation_data_dir}"
    questions = "all questions" if rows is None else _count(rows, "question")
    yield "validation", f"{questions} x {values.n}, {decoding}, {' and '.join(when) or 'never'}; answers {kept}"


def _validation_rows(config: DictConfig, cost: PromptCost) -> int | None:
    """Questions of a validation; None if no file says."""
    known = [number for number in (cost.rows, config.data.val_max_samples) if number is not None and number > 0]
    return min(known) if known else None


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' * (number != 1)}"


def _size(number: int) -> str:
    if not number:
        return "none"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 2**10:.1f} KiB"
