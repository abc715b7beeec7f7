#!/usr/bin/env bash
# Debian package descriptions, English to German: technical prose, short and long.
#
#   examples/debian-descriptions/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.en.gz and so on. Preparation takes 1.5 minutes on two cores. Of the rest only the
# start of the teacher has been run: the corpus is harder than Multi30k, and after four epochs, an
# hour of one core, the teacher does not translate yet. Use a GPU.
. "$(dirname "$0")/../sizes.sh"
small_or_medium 15000
recipe=debian-descriptions source=${SOURCE-en} target=${TARGET-de}
. "$(dirname "$0")/../stages.sh"
