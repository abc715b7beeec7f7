#!/usr/bin/env bash
# Your own parallel text, from raw files to BLEU: a teacher, its translations, and a Difformer.
#
#   SOURCE=de TARGET=en examples/plain/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.de, train.en, valid.de, valid.en, test.de and test.en (or .gz), a sentence a line.
# The models are those of Multi30k, 3 million parameters for 29,000 pairs, trained for $UPDATES updates
# (3,000). For more text, train longer or take SIZE=medium, 14 million parameters for a GPU (not run yet).
# PREPARE="--bpe-merges 8000" changes the subwords; docs/how-to/corpora.md has more options.
. "$(dirname "$0")/../sizes.sh"
small_or_medium "${UPDATES-3000}"
recipe=plain source=${SOURCE-de} target=${TARGET-en}
. "$(dirname "$0")/../stages.sh"
