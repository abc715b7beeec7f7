#!/usr/bin/env bash
# Debian's package descriptions, English to German: technical prose, short and long.
#
#   examples/debian-descriptions/run.sh RAW OUT [STAGE ...]
#
# RAW holds train.en.gz and so on. On two cores: a minute and a half to prepare, and about five
# hours for the rest (half as long again as Multi30k, by the number of words; not run).
. "$(dirname "$0")/../sizes.sh"
small_or_medium
recipe=debian-descriptions source=${SOURCE-en} target=${TARGET-de}
. "$(dirname "$0")/../stages.sh"
