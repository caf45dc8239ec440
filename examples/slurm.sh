#!/bin/bash
# sbatch examples/slurm.sh TEXT RUN [OPTIONS of charrnn train]: TEXT and the folder RUN on a disk that all hosts see.
#SBATCH --job-name=charrnn
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=01:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -eu

text=$1 run=$2
shift 2
if [ -f "$run/resume.safetensors" ]; then # requeued, or sent off again: it goes on
    set -- --resume
fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Two minutes before the time is up Slurm sends SIGTERM: all processes stop after the same step, saved.
exec srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 2 --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29400" \
    -m charrnn train "$text" --out "$run" "$@"
