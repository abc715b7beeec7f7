#!/usr/bin/env bash
# Multi30k, German to English, from raw text to BLEU on test_2016_flickr, on a CPU.
#
#   examples/multi30k/run.sh RAW OUT [MORE OPTIONS FOR fairseq-train]
#
# RAW holds the data set's own files: train.{de,en}.gz, val.{de,en}.gz and
# test_2016_flickr.{de,en}.gz. Started again after an interruption, it goes on where it was.
set -euo pipefail
raw=$(cd "$1" && pwd) out=$2
shift 2

# tokens and joint subwords
if [ ! -f "$out/text/test.en" ]; then
  mkdir -p "$out/raw"
  for lang in de en; do
    ln -sf "$raw/train.$lang.gz" "$out/raw/train.$lang.gz"
    ln -sf "$raw/val.$lang.gz" "$out/raw/valid.$lang.gz"
    ln -sf "$raw/test_2016_flickr.$lang.gz" "$out/raw/test.$lang.gz"
  done
  python -c "import sys; from difformer_plugin.data.corpus import prepare
prepare(sys.argv[1], sys.argv[2], 'de', 'en', bpe_merges=8000)" "$out/raw" "$out/text"
fi

# the data-bin
if [ ! -f "$out/data-bin/test.de-en.en.idx" ]; then
  rm -f "$out"/data-bin/dict.*.txt
  fairseq-preprocess --source-lang de --target-lang en --joined-dictionary --workers 2 \
    --trainpref "$out/text/train" --validpref "$out/text/valid" --testpref "$out/text/test" \
    --destdir "$out/data-bin"
fi

# training
plugin="--user-dir $(difformer user-dir) --task diffusion_translation"
fairseq-train "$out/data-bin" $plugin --save-dir "$out/checkpoints" \
  --criterion difformer_loss --label-smoothing 0.1 \
  --arch difformer --model-dim 128 --latent-dim 128 --share-all-embeddings \
  --encoder-layers 4 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4 \
  --decoder-layers 4 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 \
  --noise-schedule sqrt --rescaling-factor 4 --embed-norm --embed-norm-affine \
  --self-cond --rescale-timesteps --pred-length-offset --dropout 0.1 \
  --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
  --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000 \
  --max-tokens 2500 --max-update 100000 --seed 1 --cpu \
  --eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe \
  --decoding-steps 10 --decoding-early-stopping 2 \
  --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
  --save-interval 2 --validate-interval 2 --keep-last-epochs 8 \
  --tensorboard-logdir "$out/tensorboard" --log-format simple --log-interval 20 "$@" \
  2>&1 | tee -a "$out/train.log"

# translation with one candidate, and with 5 lengths x 2 noises chosen by MBR
generate() {
  name=$1
  shift
  fairseq-generate "$out/data-bin" $plugin --path "$out/checkpoints/checkpoint_best.pt" \
    --gen-subset test --decoding-steps 20 --decoding-early-stopping 5 --batch-size 50 --cpu \
    --tokenizer moses --source-lang de --target-lang en --remove-bpe "$@" >"$out/$name.out"
  grep '^D-' "$out/$name.out" | sort -t- -nk2 | cut -f3 >"$out/$name.en"
  gzip -dc "$out/raw/test.en.gz" >"$out/reference.en"
  echo "$name: $(wc -l <"$out/$name.en") sentences"
  sacrebleu "$out/reference.en" -i "$out/$name.en" -m bleu -f text
}
generate b1
generate b10 --length-beam-size 5 --noise-beam-size 2 --bleu-mbr
