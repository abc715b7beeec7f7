#!/usr/bin/env bash
# QQP, paraphrasing, with the paper's hyper-parameters (Table 21), on raw targets as in
# the paper.
#
#   examples/qqp/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.jsonl, valid.jsonl and test.jsonl. In the paper, Difformer trains
# for nearly 12 hours on one V100.
. "$(dirname "$0")/../sizes.sh"
wide 5e-4 10000 50000 8192
recipe=qqp source=src target=tgt evaluation="--target-lang en --lowercase"
. "$(dirname "$0")/../stages.sh"
