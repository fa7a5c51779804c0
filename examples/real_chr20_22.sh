#!/usr/bin/env bash
# The whole road on real hg19 data: ten TFs in K562, a cell type that fine-tuning never sees. A first model is judged on chr22,
# which it never sees either; a second learns from chr22 too, predicts chr21, and stays in WORK_FOLDER/models, where
# `ebert predict --tf CTCF --cell K562` finds it.
#
#   examples/real_chr20_22.sh [WORK_FOLDER]
#
# EBERT_REAL_DATA  folder with genome/ states/ chip/ dnase/ annotation/ motifs/   (default ../shared/data)
# EBERT_SEED       seed of pre-training and fine-tuning                         (default 0)
# EBERT_ENSEMBLE   models of other seeds whose mean the second is                (default 3; 1 if quick)
# EBERT_QUICK=1    a few steps only: shows that the road holds, not how good it is
# EBERT_TFS        TFs                                                           (default the ten below)
# EBERT            the command, if it is not on the PATH                        (default ebert)
set -euo pipefail
data=$(realpath "${EBERT_REAL_DATA:-../shared/data}")
work=${1:-work/real_chr20_22}
seed=${EBERT_SEED:-0}
tfs=${EBERT_TFS:-CTCF,MAX,REST,GABPA,JUND,TAF1,RAD21,CEBPB,MAFK,YY1}
motifs=$data/motifs/JASPAR2024_CORE_human.meme
read -r -a ebert <<<"${EBERT:-ebert}"
pretrain=(--seed "$seed") finetune=(--seed "$seed") ensemble=3
if [[ -n ${EBERT_QUICK:-} ]]; then
  pretrain+=(--steps 40)
  finetune+=(--steps 20 --set evaluate_every=20 --set valid_bp=1000000 --set trees=15)
  ensemble=1
fi

run() {
  echo "\$ ebert $*" >&2
  "${ebert[@]}" "$@"
}

mkdir -p "$work"
cd "$work"
run prepare --genome "$data/genome/hg19.chr20_21_22.fa.gz" --states "$data/states/roadmap18" \
  --chip "$data/chip/uniform" --accessibility "$data/dnase" \
  --exclude "$data/annotation/wgEncodeDacMapabilityConsensusExcludable.bed.gz" \
  --tss "$data/annotation/wgEncodeGencodeBasicV19.txStart.bed.gz"
run pretrain --preset tiny "${pretrain[@]}"
# How good it is: trained on chr20 alone, judged on chr22.
run finetune --tf "$tfs" --also all --motifs "$motifs" --hold-out-cell K562 --hold-out-chrom chr22 --output without-chr22 \
  "${finetune[@]}"
run predict --tf "$tfs" --cell K562 --chrom chr22 --model without-chr22 --output predictions-chr22
run evaluate predictions-chr22/*.K562.bw --chrom chr22 --motifs "$motifs"
# The model to keep: trained on chr20 and chr22.
run finetune --tf "$tfs" --also all --motifs "$motifs" --hold-out-cell K562 --ensemble "${EBERT_ENSEMBLE:-$ensemble}" \
  "${finetune[@]}"
run predict --tf "$tfs" --cell K562 --chrom chr21
