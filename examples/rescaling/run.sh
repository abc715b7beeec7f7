#!/usr/bin/env bash
# The effect of noise rescaling on the demonstration's corpus: BLEU by DGS_MAX and noise schedule
# (the paper's Tables 9 and 13), with F constant or updated during training, and with the anchor or the
# rounding loss (Tables 1 and 7). At the end, the probe of Fig. 2a.
#
#   examples/rescaling/run.sh OUT [MORE OPTIONS FOR fairseq-train]
#
# ROWS="sqrt-none sqrt-15" runs these rows only, so that several can run at once, each with
# OMP_NUM_THREADS=1. SENTENCES=40000 and HELD_OUT=500 are the sizes of the corpus. A row takes about
# six minutes on two cores. An interrupted run resumes.
set -euo pipefail
out=${1?usage: $0 OUT [MORE OPTIONS FOR fairseq-train]}
shift
. "$(dirname "$0")/../environment.sh"
plugin="--user-dir $(difformer user-dir) --task diffusion_translation"

if [ ! -f "$out/raw/test.en" ]; then
  python -c "import sys
from difformer_plugin.data.synthetic.grammar import write_corpus
out, size, held_out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
write_corpus(f'{out}/raw', 1, size, held_out, held_out)" "$out" "${SENTENCES:-40000}" "${HELD_OUT:-500}"
fi
difformer prepare "$(dirname "$0")/words.toml" --raw "$out/raw" --out "$out" \
  --source-lang de --target-lang en

# row NAME SCHEDULE OPTIONS: train, translate the test set in two ways, print a row of the table.
row() {
  name=$1 schedule=$2
  shift 2
  case " ${ROWS-$name} " in *" $name "*) ;; *) return 0 ;; esac
  if [ -f "$out/$name/result.txt" ]; then
    cat "$out/$name/result.txt"
    return 0
  fi
  mkdir -p "$out/$name"
  [ -f "$out/$name/finished" ] || fairseq-train "$out/data-bin" $plugin --arch difformer_paper_tiny \
    --criterion difformer_loss --noise-schedule "$schedule" --dropout 0 \
    --length-loss-factor 0.01 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
    --lr 3e-3 --lr-scheduler cosine --warmup-updates 200 --max-tokens 2048 --max-update 1600 \
    --seed 1 --cpu --no-epoch-checkpoints --save-dir "$out/$name" \
    --log-format simple --log-interval 50 "$@" >>"$out/$name/train.log"
  touch "$out/$name/finished"  # fairseq would add one more update
  bleu=$(score b1) mbr=$(score b6 --length-beam-size 3 --noise-beam-size 2 --bleu-mbr)
  last=$(grep '| valid |' "$out/$name/train.log" | tail -n 1)
  printf '%-16s F %-8s DGS %-8s BLEU %s with 1 candidate, %s with 3 x 2\n' "$name" \
    "$(measure rescaling_factor)" "$(measure dgs)" "$bleu" "$mbr" | tee "$out/$name/result.txt"
}

measure() {
  sed -E "s/.*\| $1 ([^ ]+).*/\1/" <<<"$last"
}

score() {
  to="$out/$name/$1"
  shift
  fairseq-generate "$out/data-bin" $plugin --path "$out/$name/checkpoint_last.pt" \
    --gen-subset test --decoding-steps 20 --decoding-early-stopping 5 --batch-size 100 --cpu \
    --tokenizer moses --source-lang de --target-lang en "$@" >"$to.out"
  grep '^D-' "$to.out" | sort -t- -nk2 | cut -f3 >"$to.en"
  sacrebleu "$out/raw/test.en" -i "$to.en" -m bleu -b -w 2
}

more=("$@")
static() {
  row "$1" "$2" --rescaling-factor auto --max-dgs "$3" "${@:4}" "${more[@]}"
}
following() {
  row "$1" "$2" --rescaling-factor auto --max-dgs "$3" --rescaling-update-interval 100 "${more[@]}"
}
row sqrt-none sqrt --rescaling-factor 1 "${more[@]}"
static sqrt-50 sqrt 0.50
static sqrt-15 sqrt 0.15
static sqrt-05 sqrt 0.05
following sqrt-follow-50 sqrt 0.50
following sqrt-follow-15 sqrt 0.15
following sqrt-follow-05 sqrt 0.05
row cosine-none cosine --rescaling-factor 1 "${more[@]}"
static cosine-50 cosine 0.50
static cosine-15 cosine 0.15
static cosine-05 cosine 0.05
row linear-none linear --rescaling-factor 1 "${more[@]}"
static linear-15 linear 0.15
static linear-05 linear 0.05
row sqrt-none-rounding sqrt --rescaling-factor 1 --rounding-loss "${more[@]}"
static sqrt-15-rounding sqrt 0.15 --rounding-loss
static sqrt-15-vlb sqrt 0.15 --mse-loss-only

if [ -f "$out/sqrt-none/result.txt" ] && [ -f "$out/sqrt-15/result.txt" ]; then
  difformer probe "$out/data-bin" --plot "$out/probe.png" \
    --path "$out/sqrt-none/checkpoint_last.pt:$out/sqrt-15/checkpoint_last.pt"
fi
