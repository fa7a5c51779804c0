#!/usr/bin/env bash
# Pre-training on two processes of the CPU with torchrun, and the same run on one: equal losses to rounding.
#
#   examples/pretrain_torchrun.sh [DATASET] [WORK_FOLDER]
#
# DATASET is what `ebert prepare` made (default dataset). On a machine with GPUs, leave out --device cpu and give as many
# processes as there are GPUs.
#
# EBERT      the command, if it is not on the PATH    (default ebert)
# TORCHRUN   torchrun, if it is not on the PATH       (default torchrun)
set -euo pipefail
dataset=$(realpath "${1:-dataset}")
work=${2:-work/pretrain_torchrun}
read -r -a ebert <<<"${EBERT:-ebert}"
read -r -a torchrun <<<"${TORCHRUN:-torchrun}"
options=(--dataset "$dataset" --preset tiny --steps 20 --device cpu --precision fp32 --threads 1 --quiet --overwrite
  --set window_bp=1000 --set global_batch=6 --set evaluate_every=10)

mkdir -p "$work"
"${torchrun[@]}" --standalone --nproc-per-node 2 -m ebert_cli pretrain "${options[@]}" --output "$work/two"
"${ebert[@]}" pretrain "${options[@]}" --output "$work/one"
echo "held-out bits per base on two processes, and on one:"
for name in two one; do
  grep '"evaluate"' "$work/$name/journal.jsonl" | sed -E 's/.*"step": ([0-9]+),.*"valid_bits_per_base": ([0-9.]+).*/  step \1  \2/'
done
