#!/usr/bin/env bash
# Multi30k, German to English, from raw text to BLEU on test_2016_flickr.
#
#   examples/multi30k/run.sh RAW OUT [STAGE ...]
#
# RAW holds the data set's own files, train.de.gz and so on; PREPARE=--download fetches them.
# SOURCE=en TARGET=de turns it round; fr and cs are there as well. On two cores: a minute to
# prepare, 65 minutes for the teacher, 7 to distil, about two and a half hours for the Difformer.
# SIZE=medium is of models for a GPU, of 13 million parameters (not run yet).
#
# benchmarks/multi30k.md has the options of shorter trainings, an hour of one core each.
#
# Discrete diffusion, several families side by side, each by the number of steps:
#
#   FAMILIES="mdlm d3pm-uniform flexible" K="1 5 10 20 50" \
#     examples/multi30k/run.sh RAW OUT train_discrete train_cmlm evaluate_discrete
#
# after the stages prepare, train_teacher and distill, or with DATA=raw after prepare alone.
. "$(dirname "$0")/../sizes.sh"
small_or_medium
recipe=multi30k source=${SOURCE-de} target=${TARGET-en}
. "$(dirname "$0")/../stages.sh"
