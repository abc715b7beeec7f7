#!/usr/bin/env bash
# Gigaword, summarisation, with the paper's hyper-parameters (Table 21).
#
#   examples/gigaword/run.sh RAW OUT [STAGE ...]
#
# RAW holds the files in the recipe. In the paper, Difformer trains for nearly a day on 8 V100.
. "$(dirname "$0")/../sizes.sh"
base
recipe=gigaword source=src target=tgt evaluation="--target-lang en"
. "$(dirname "$0")/../stages.sh"
