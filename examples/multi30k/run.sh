#!/usr/bin/env bash
# Multi30k, German to English, from raw text to BLEU on test_2016_flickr.
#
#   examples/multi30k/run.sh RAW OUT [STAGE ...]
#
# RAW holds the files of the data set, train.de.gz and so on; PREPARE=--download fetches them.
# SOURCE=en TARGET=de reverses the direction; fr and cs are available too. On a core with AVX2
# (GPUS=0 OMP_NUM_THREADS=1), preparation takes a minute, the teacher an hour, distillation 8
# minutes, Difformer 2 hours and CMLM an hour. benchmarks/multi30k.md has the scores of these models, and other
# options. SIZE=medium is a model of 14 million parameters for a GPU (not run yet).
#
# To compare several families of discrete diffusion for several numbers of steps:
#
#   FAMILIES="mdlm d3pm-uniform flexible" K="1 5 10 20 50" \
#     examples/multi30k/run.sh RAW OUT train_discrete train_cmlm evaluate_discrete
#
# Run the stages prepare, train_teacher and distill before, or with DATA=raw prepare alone.
. "$(dirname "$0")/../sizes.sh"
small_or_medium 3000
recipe=multi30k source=${SOURCE-de} target=${TARGET-en}
. "$(dirname "$0")/../stages.sh"
