#!/usr/bin/env bash
# IWSLT14, German to English, with the paper's hyper-parameters (Table 21).
#
#   examples/iwslt14-de-en/run.sh RAW OUT [STAGE ...]
#
# RAW holds de-en.tgz or its contents; PREPARE=--download fetches it. The paper reports 34.48
# tokenised BLEU with ten candidates (Table 3), after about 12 hours of training on one V100.
. "$(dirname "$0")/../sizes.sh"
iwslt
recipe=iwslt14-de-en source=de target=en evaluation=--lowercase
. "$(dirname "$0")/../stages.sh"
