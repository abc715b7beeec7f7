#!/usr/bin/env bash
# IWSLT14, German to English, with the paper's hyper-parameters (Table 21).
#
#   examples/iwslt14-de-en/run.sh RAW OUT [STAGE ...]
#
# RAW holds de-en.tgz, or what is in it; PREPARE=--download fetches it. The paper: 34.48 tokenised
# BLEU with ten candidates (Table 3), and about 12 hours on one V100 for the Difformer.
recipe=iwslt14-de-en source=de target=en
stages="prepare train_teacher distill train average train_cmlm evaluate"
max_tokens=8192
teacher="--arch transformer_iwslt_de_en --dropout 0.3 --weight-decay 1e-4 --clip-norm 0
  --lr 5e-4 --warmup-updates 4000 --max-update 100000"
teacher_batch=8192
difformer="--arch difformer_iwslt_de_en --dropout 0.3 --apply-bert-init
  --encoder-learned-pos --decoder-learned-pos
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 300000"
difformer_batch=8192
max_dgs=0.15
cmlm="--encoder-ffn-embed-dim 1024 --encoder-attention-heads 4
  --decoder-ffn-embed-dim 1024 --decoder-attention-heads 4 --dropout 0.3
  --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --max-update 300000"
evaluation=--lowercase
. "$(dirname "$0")/../stages.sh"
