#!/usr/bin/env bash
# Wiki-Auto, text simplification, with the paper's hyper-parameters (Table 21), on raw targets as in
# the paper.
#
#   examples/wiki-auto/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.jsonl, valid.jsonl and test.jsonl. In the paper, Difformer trains
# for nearly 12 hours on one V100.
. "$(dirname "$0")/../sizes.sh"
wide 5e-4 10000 30000 65536
recipe=wiki-auto source=src target=tgt evaluation="--target-lang en --lowercase"
. "$(dirname "$0")/../stages.sh"
