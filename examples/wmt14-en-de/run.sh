#!/usr/bin/env bash
# WMT14, English to German, with the paper's hyper-parameters (Table 21).
#
#   examples/wmt14-en-de/run.sh RAW OUT [STAGE ...]
#
# RAW holds the organisers' archives; PREPARE=--download fetches them (2 GB). The paper reports 27.70
# tokenised BLEU with ten candidates (Table 3), after nearly a day of training on 8 V100.
. "$(dirname "$0")/../sizes.sh"
base
recipe=wmt14-en-de source=en target=de
. "$(dirname "$0")/../stages.sh"
