#!/usr/bin/env bash
# Multi30k, German to English, from raw text to BLEU on test_2016_flickr.
#
#   examples/multi30k/run.sh RAW OUT [STAGE ...]
#
# RAW holds the files of the data set, train.de.gz and so on; PREPARE=--download fetches them.
# SOURCE=en TARGET=de reverses the direction; fr and cs are available too. On two cores, preparation
# takes a minute, the teacher over an hour, distillation 7 minutes and Difformer about 2.5 hours.
# SIZE=medium is a model of 14 million parameters for a GPU (not run yet).
#
# benchmarks/multi30k.md and multi30k-random-weights.md have options for shorter training, an hour
# on one core each.
#
# To compare several families of discrete diffusion for several numbers of steps:
#
#   FAMILIES="mdlm d3pm-uniform flexible" K="1 5 10 20 50" \
#     examples/multi30k/run.sh RAW OUT train_discrete train_cmlm evaluate_discrete
#
# Run the stages prepare, train_teacher and distill before, or with DATA=raw prepare alone.
. "$(dirname "$0")/../sizes.sh"
small_or_medium
recipe=multi30k source=${SOURCE-de} target=${TARGET-en}
. "$(dirname "$0")/../stages.sh"
