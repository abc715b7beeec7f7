#!/usr/bin/env bash
# QQP, paraphrasing, with the paper's hyper-parameters (Table 21), on the raw targets as there.
#
#   examples/qqp/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.jsonl, valid.jsonl and test.jsonl. The paper: nearly 12 hours on one V100.
recipe=qqp source=src target=tgt
stages="prepare train average evaluate"
max_tokens=8192
difformer="--arch difformer_base --dropout 0.1 --apply-bert-init
  --encoder-learned-pos --decoder-learned-pos
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 50000"
difformer_batch=8192
max_dgs=0.15
# not among its stages, since the paper trains on the raw targets: train_teacher, distill, train_cmlm
teacher="--arch transformer --dropout 0.1 --clip-norm 0 --weight-decay 0
  --lr 5e-4 --warmup-updates 4000 --max-update 50000"
teacher_batch=8192
cmlm="--encoder-embed-dim 768 --encoder-ffn-embed-dim 3072 --encoder-attention-heads 12
  --decoder-embed-dim 768 --decoder-ffn-embed-dim 3072 --decoder-attention-heads 12 --dropout 0.1
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 50000"
evaluation="--target-lang en --lowercase"
. "$(dirname "$0")/../stages.sh"
