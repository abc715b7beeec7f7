#!/usr/bin/env bash
# Debian package descriptions, English to German: technical prose, short and long.
#
#   examples/debian-descriptions/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.en.gz and so on. Preparation takes 1.5 minutes on two cores. The rest has not been
# run; by the number of words it takes about five hours, 1.5 times as long as Multi30k.
. "$(dirname "$0")/../sizes.sh"
small_or_medium
recipe=debian-descriptions source=${SOURCE-en} target=${TARGET-de}
. "$(dirname "$0")/../stages.sh"
