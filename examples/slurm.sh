#!/usr/bin/env bash
# Trains on several machines of a SLURM cluster: sbatch --nodes=2 examples/slurm.sh [train.py's options]
# Submit it in the project's folder, which all machines see, as they do the data and the run folders.
#SBATCH --job-name=genvs
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.log
set -euo pipefail

# train.sh starts a process for each GPU of its machine; all meet at the first machine.
read -r PET_MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export PET_MASTER_ADDR PET_MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) PET_NNODES=$SLURM_JOB_NUM_NODES

# One task a machine. Two minutes before the time is over SLURM sends SIGTERM, and the run is saved: --resume goes on.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c 'PET_NODE_RANK=$SLURM_NODEID exec ./train.sh "$@"' train.sh "$@"
