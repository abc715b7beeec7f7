#!/usr/bin/env bash
# Quasar-T, question generation, with the paper's hyper-parameters (Table 21), on raw targets as in
# the paper.
#
#   examples/quasar-t/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.jsonl, valid.jsonl and test.jsonl. In the paper, Difformer trains
# for nearly 12 hours on one V100.
. "$(dirname "$0")/../sizes.sh"
wide 3e-4 5000 100000 65536
recipe=quasar-t source=src target=tgt evaluation="--target-lang en --lowercase" max_dgs=0.20
. "$(dirname "$0")/../stages.sh"
