#!/usr/bin/env bash
# WMT16, English to Romanian, with the paper's hyper-parameters (Table 21).
#
#   examples/wmt16-en-ro/run.sh RAW OUT [STAGE ...]
#
# RAW holds the organisers' archives; PREPARE=--download fetches them. In the paper, Difformer trains
# for nearly a day on 8 V100.
. "$(dirname "$0")/../sizes.sh"
base
recipe=wmt16-en-ro source=en target=ro
. "$(dirname "$0")/../stages.sh"
