#!/usr/bin/env bash
# Debian package descriptions, English to German: technical prose, short and long.
#
#   examples/debian-descriptions/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.en.gz and so on. Preparation takes 1.5 minutes on two cores. The corpus is harder than
# Multi30k: after four epochs, an hour of one core, the teacher does not translate yet. Use a GPU: with
# TRAIN_TEACHER="--max-tokens 8000 --update-freq 1 --max-update 4665 --dropout 0.1", eight minutes of a
# shared H200, it has 27 BLEU, and a Difformer of 3,000 updates, two hours of a core, 16
# (benchmarks/debian-descriptions.md).
. "$(dirname "$0")/../sizes.sh"
small_or_medium 15000
recipe=debian-descriptions source=${SOURCE-en} target=${TARGET-de}
. "$(dirname "$0")/../stages.sh"
