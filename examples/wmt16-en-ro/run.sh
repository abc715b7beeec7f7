#!/usr/bin/env bash
# WMT16, English to Romanian, with the paper's hyper-parameters (Table 21).
#
#   examples/wmt16-en-ro/run.sh RAW OUT [STAGE ...]
#
# RAW holds the organisers' archives; PREPARE=--download fetches them. The paper: nearly a day on
# 8 V100 for the Difformer.
recipe=wmt16-en-ro source=en target=ro
stages="prepare train_teacher distill train average train_cmlm evaluate"
max_tokens=8192
teacher="--arch transformer --dropout 0.1 --clip-norm 0 --weight-decay 0
  --lr 7e-4 --warmup-updates 4000 --max-update 100000"
teacher_batch=32768
difformer="--arch difformer --dropout 0.1 --apply-bert-init
  --encoder-learned-pos --decoder-learned-pos
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 300000"
difformer_batch=65536
max_dgs=0.15
cmlm="--dropout 0.1
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 300000"
evaluation=""
. "$(dirname "$0")/../stages.sh"
