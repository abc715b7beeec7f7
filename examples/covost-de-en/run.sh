#!/usr/bin/env bash
# CoVoST 2, German to English: short spoken sentences, in ASCII.
#
#   examples/covost-de-en/run.sh RAW OUT [STAGE ...]
#
# RAW holds validated.tsv, of version 4 of Common Voice's German data set, which has to be fetched by
# hand (https://commonvoice.mozilla.org/en/datasets), and covost_v2.de_en.tsv or its archive
# (https://github.com/facebookresearch/covost). Not run on the real data yet.
#
# With the stage train_levenshtein before evaluate, there are all of the thesis's baselines.
# SIZE=medium is a model of 14 million parameters for a GPU.
. "$(dirname "$0")/../sizes.sh"
small_or_medium 12000
recipe=covost-de-en source=${SOURCE-de} target=${TARGET-en}
. "$(dirname "$0")/../stages.sh"
