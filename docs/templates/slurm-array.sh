#!/bin/bash
# A suite or an evaluation as a Slurm job array: each task of the array does one part.
#
#   sbatch --array=0-7 docs/templates/slurm-array.sh run suite.json
#   sbatch --array=0-7 docs/templates/slurm-array.sh eval --model /models/gpt-oss-20b --task mmlu
#
# A part that failed is submitted again by its number alone; say then how many there are:
#   MOEBENCH_PARTS=8 sbatch --array=3 docs/templates/slurm-array.sh run suite.json
#
# When all parts are there (`sbatch --dependency=afterany:JOB` can wait for them):
#   moebench merge moebench-out/parts-JOB -o moebench-out/whole
#
#SBATCH --job-name=moebench
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:INT@120
# Parts whose times are to be compared need machines of one kind, each to itself:
# #SBATCH --exclusive --constraint=...   and for CUDA plans   #SBATCH --gpus=1
set -euo pipefail

# With MOEBENCH_PARTS the number of the task is that of the part. Without, all tasks of the array
# share the work, whatever their numbers.
shard=auto
[ -z "${MOEBENCH_PARTS:-}" ] || shard=$SLURM_ARRAY_TASK_ID/$MOEBENCH_PARTS
folder=${MOEBENCH_OUT:-moebench-out/parts-$SLURM_ARRAY_JOB_ID}/$SLURM_ARRAY_TASK_ID

# A job that was requeued, or submitted again into the same MOEBENCH_OUT, goes on where it stopped.
resume=()
[ ! -e "$folder/run.json" ] || resume=(--resume)
exec "${MOEBENCH_PROGRAM:-moebench}" "$@" --shard "$shard" --out "$folder" "${resume[@]}"
