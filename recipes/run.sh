#!/usr/bin/env bash
# Plan a run, and start it if nothing stands against it:
#   recipes/run.sh RECIPE NAME [OVERRIDE...]
# NAME is the run's folder below outputs/. It starts on this machine, or on the Ray cluster that RAY_ADDRESS names.
set -euo pipefail

recipe=$1
name=$2
overrides=("recipe=$recipe" "trainer.experiment_name=$name" "${@:3}")

# verl's TensorBoard logger has no setting for its folder; here `verl-twgrpo report` finds it. On a cluster that runs
# already it has to be set where `ray start` is called.
export TENSORBOARD_DIR=${TENSORBOARD_DIR:-outputs/$name/tensorboard}

verl-twgrpo plan "${overrides[@]}"
exec python -m verl.trainer.main_ppo "${overrides[@]}"
