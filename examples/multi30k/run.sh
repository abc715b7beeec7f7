#!/usr/bin/env bash
# Multi30k, German to English, from raw text to BLEU on test_2016_flickr, on a CPU.
#
#   examples/multi30k/run.sh RAW OUT [STAGE ...]
#
# RAW holds the data set's own files, train.de.gz and so on; PREPARE=--download fetches them.
# SOURCE=en TARGET=de turns it round; fr and cs are there as well. On two cores: a minute to
# prepare, 65 minutes for the teacher, 7 to distil, two and a half hours for the Difformer.
recipe=multi30k source=${SOURCE-de} target=${TARGET-en}
stages="prepare train_teacher distill train average train_cmlm evaluate"
max_tokens=4096
small="--encoder-layers 4 --encoder-attention-heads 4 --decoder-layers 4 --decoder-attention-heads 4"
teacher="--arch transformer $small --encoder-embed-dim 128 --encoder-ffn-embed-dim 256
  --decoder-embed-dim 128 --decoder-ffn-embed-dim 256 --dropout 0.3 --clip-norm 1.0
  --lr 5e-3 --warmup-updates 2000 --max-epoch 23"
teacher_batch=4096
difformer="--arch difformer --model-dim 128 --latent-dim 128 $small
  --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --dropout 0.1
  --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000 --max-epoch 30"
difformer_batch=4096
max_dgs=0.15
cmlm="$small --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
  --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --dropout 0.1
  --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000 --max-epoch 30"
evaluation=
. "$(dirname "$0")/../stages.sh"
