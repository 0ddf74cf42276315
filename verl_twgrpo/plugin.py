"""Everything that is registered with verl, in one place.

verl imports this module from its entry-point group ``verl.plugins`` inside ``import verl``: in the driver, in Ray
workers and in vLLM's workers. What needs one of verl's larger modules waits until that module is imported, so that
loading the plugin costs next to nothing. verl logs a plugin's errors at DEBUG, that is, nowhere: ``verl-twgrpo doctor``
loads all of this and shows them.
"""

from __future__ import annotations

import os
import sys
import warnings
from types import ModuleType

import wrapt

from verl_twgrpo.compat import workaround
from verl_twgrpo.config import hydra_groups, near_names, one_composition
from verl_twgrpo.platforms import cpu


def register_algorithm(core_algos: ModuleType) -> None:
    """Policy loss ``tw_grpo`` and advantage estimator ``tw_grpo``."""
    from verl_twgrpo.training.losses import tw_grpo_advantage, tw_grpo_loss

    core_algos.register_policy_loss("tw_grpo")(tw_grpo_loss)
    core_algos.register_adv_est("tw_grpo")(tw_grpo_advantage)


def register_trainer(_: ModuleType) -> None:
    """V1 trainer ``tw_grpo``, and one for each of verl's asynchronous trainers."""
    import verl_twgrpo.training.trainer  # noqa: F401


def register_reward_manager(_: ModuleType) -> None:
    """Reward managers ``multi_answer`` and ``video_tasks``."""
    import verl_twgrpo.rewards.manager  # noqa: F401


def register_agent_loop(_: ModuleType) -> None:
    """Agent loops ``seeded_single_turn_agent``, and those that shuffle frames."""
    import verl_twgrpo.training.seeded_rollout
    import verl_twgrpo.training.shuffled_frames  # noqa: F401


def check_before_training(config_module: ModuleType) -> None:
    """Our checks run before verl's ``validate_config``, that is, on the driver before Ray starts.

    It also gives the driver its exit summary of a failed run.
    """

    def check(wrapped, instance, args, kwargs):
        from verl_twgrpo.training.checks import check_training_config
        from verl_twgrpo.training.exit_summary import install_exit_summary
        from verl_twgrpo.training.modes import choose_trainer

        config = args[0] if args else kwargs["config"]
        try:
            notes = check_training_config(config)
        except (ValueError, OSError) as error:
            # verl's entry point would print a traceback for what is a sentence to the user
            raise SystemExit(f"verl-twgrpo: {error}") from error
        for note in notes:
            print(f"verl-twgrpo: note: {note}", file=sys.stderr)
        choose_trainer(config)
        install_exit_summary(config)
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(config_module, "validate_config", check)


def check_entry_point(main_ppo: ModuleType) -> None:
    """Other entry points of verl's are refused before Ray starts."""
    from verl_twgrpo.training.checks.trainer import check_before_ray

    check_before_ray(main_ppo)


def register_cpu_rollout(replica: ModuleType) -> None:
    """vLLM's replica for platform "cpu"."""

    def load():
        from verl_twgrpo.platforms.vllm_replica import CPUvLLMReplica

        return CPUvLLMReplica

    replica.RolloutReplicaRegistry.register("vllm", load)


def offer_video_reader(vision_process: ModuleType) -> None:
    """PyAV as a video reader of qwen-vl-utils."""
    from verl_twgrpo.video.reader import offer_pyav

    offer_pyav(vision_process)


def resolve_video_paths(rl_dataset: ModuleType) -> None:
    """Video paths relative to their parquet file, for every dataset of verl."""
    from verl_twgrpo.video.paths import resolve_in_verls_datasets

    resolve_in_verls_datasets(rl_dataset)


def share_prepared_frames(video_processing: ModuleType) -> None:
    """Frames from the cache are prepared once for all rollouts of a prompt."""
    from verl_twgrpo.video.sharing import share_preparation

    share_preparation(video_processing)


def expect_no_critic(_: ModuleType) -> None:
    """A run that selects one of our groups has no critic: verl's warning that there is none would be noise."""
    if any(word.lstrip("+").startswith(("algorithm=", "recipe=")) for word in sys.argv):
        warnings.filterwarnings("ignore", message="Disabled critic")


# module -> what happens once it is imported
ON_IMPORT = {
    "hydra._internal.config_loader_impl": near_names.name_near_settings,
    "hydra._internal.hydra": one_composition.take_the_mode_for_unset,
    "hydra._internal.utils": near_names.end_with_the_sentence,
    "verl.trainer.ppo.utils": expect_no_critic,
    "verl.trainer.ppo.core_algos": register_algorithm,
    "verl.trainer.ppo.v1": register_trainer,
    "verl.experimental.reward_loop": register_reward_manager,
    "verl.experimental.agent_loop": register_agent_loop,
    "verl.utils.config": check_before_training,
    "verl.trainer.main_ppo": check_entry_point,
    "qwen_vl_utils.vision_process": offer_video_reader,
    "verl.utils.dataset.rl_dataset": resolve_video_paths,
    "transformers.video_processing_utils": share_prepared_frames,
}
ON_IMPORT_ON_CPU = {
    "verl.workers.rollout.replica": register_cpu_rollout,
}


def register() -> None:
    """Hydra groups, platform "cpu", the workarounds of compat/, and a hook for each of verl's modules named above."""
    hydra_groups.register()
    workaround.install(sys.modules[__name__])
    hooks = dict(ON_IMPORT)
    if cpu.is_selected():
        # verl's FSDP engines are registered for accelerators; this is its own switch to have them on another device
        os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
        hooks |= ON_IMPORT_ON_CPU
    for module, hook in hooks.items():
        wrapt.register_post_import_hook(hook, module)


register()
