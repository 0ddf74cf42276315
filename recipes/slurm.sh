#!/usr/bin/env bash
#SBATCH --job-name=tw_grpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%j.out
#
# A Ray cluster over the nodes of a Slurm job, and a run on it:
#   sbatch recipes/slurm.sh RECIPE NAME [OVERRIDE...]
# Start it in the checkout, from an activated environment; checkout, environment, data and outputs have to lie on a file
# system that all nodes see. One prompt a GPU and step, as in the paper.
set -euo pipefail

recipe=$1
name=$2
port=${RAY_PORT:-6379}
gpus=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_PER_NODE))
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
# the first address, if a node has several
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
start=(ray start --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$SLURM_GPUS_PER_NODE" --block)

# every process of Ray has this environment
export TENSORBOARD_DIR=$PWD/outputs/$name/tensorboard

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  "${start[@]}" --head --node-ip-address="$head_ip" --port="$port" &
sleep 10
workers=$((SLURM_JOB_NUM_NODES - 1))
if ((workers > 0)); then
  srun --overlap --nodes="$workers" --ntasks="$workers" --exclude="$head" "${start[@]}" --address="$head_ip:$port" &
  sleep 10
fi

RAY_ADDRESS=$head_ip:$port srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  recipes/run.sh "$recipe" "$name" \
  data_dir="$PWD/data" \
  out_dir="$PWD/outputs" \
  trainer.nnodes="$SLURM_JOB_NUM_NODES" \
  trainer.n_gpus_per_node="$SLURM_GPUS_PER_NODE" \
  data.train_batch_size="$gpus" \
  "${@:3}"
