# From raw text to a score, in stages. The run.sh of each data set sets variables and sources this.
#
#   examples/DATASET/run.sh RAW OUT [STAGE ...]
#
# Stages: prepare, train_teacher, distill, train, average, train_cmlm (a baseline) and evaluate. By
# default all stages in the data set's `stages` run, in this order. Preparation, trainings and
# distillation resume where they were interrupted, and are skipped once they are finished; averages
# (but for the teacher's) and evaluations are made anew.
#
# Environment variables (defaults in parentheses):
#   PREPARE, TRAIN_TEACHER, DISTILL, TRAIN, TRAIN_CMLM, TRAIN_LEVENSHTEIN, TRAIN_DISCRETE,
#   TRAIN_JOINT, GENERATE, EVALUATE
#              more options for the commands of a stage, such as TRAIN="--max-update 1000"; those
#              in GENERATE are for diffusion models
#   TEACHER_AVERAGE, AVERAGE_BEST, CMLM_AVERAGE, LEVENSHTEIN_AVERAGE
#              number of checkpoints to average (sizes.sh has one for each size)
#   RESCALING  options of noise rescaling (--rescaling-factor auto and the data set's --max-dgs)
#   INIT       what diffusion models start from (--init-from-teacher OUT/teacher.pt for sizes that
#              fit their teacher's, and CMLM then too); INIT= starts all from random weights
#   EXTRAS     options that improve a Difformer that starts from its teacher (those in `init_options`
#              below, unless INIT is given); EXTRAS= leaves them out
#   DATA       raw or distilled: which targets to train on (distilled, if `stages` has distill)
#   GPUS       number of GPUs to use, the first ones (all); 0 runs on the CPU
#   PRECISION  option for the precision, such as --bf16 (--fp16 on GPUs, --cpu without)
#   DRY_RUN    1 prints the commands without running them
#
# Three more stages run only if they are named. train_levenshtein trains one more baseline, fairseq's
# Levenshtein Transformer, which `evaluate` then scores too. train_discrete and evaluate_discrete
# train and evaluate discrete diffusion:
#   FAMILIES   models to train (mdlm): mdlm, d3pm, d3pm-uniform, d3pm-nearest (with the teacher's
#              embeddings), sedd, sedd-uniform, flexible. The name is the objective, followed by the
#              process if that is not absorbing.
#   K          numbers of decoding steps (20), such as K="1 5 20"
# For d3pm-uniform, for example, OUT receives d3pm-uniform/, d3pm-uniform.pt, d3pm-uniform.bound (from
# fairseq-validate on the test set) and, for each K, d3pm-uniform-k20-b1.out with one candidate and
# d3pm-uniform-k20-b10.out with ten.
#
# Two more, train_joint and evaluate_joint, also run only if they are named:
#   SYSTEMS    joint sequences to train (diffuseq): diffuseq, diffuseq-blind (its source is computed
#              once), diffuseq-padded (lengths by padding), diffuseq-expected (expected embeddings),
#              diffusion-lm, and diffuseq-published (positions through both halves, the time in both,
#              and no layers of the teacher)
# For diffuseq, OUT receives diffuseq/, diffuseq.pt, and diffuseq-b1.out (one candidate),
# diffuseq-b10.out (ten) and diffuseq-ar.out (one, from left to right). `difformer evaluate` compares
# them with the teacher by the length of the source.
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: $0 RAW OUT [STAGE ...]    (stages: $stages)" >&2
  exit 2
fi
raw=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- $stages
known=" prepare train_teacher distill train average train_cmlm evaluate "
known+="train_levenshtein train_discrete evaluate_discrete train_joint evaluate_joint "

# is_one_of WORD LIST: the list has spaces around all of its words.
is_one_of() {
  [[ $1 != *" "* && $2 == *" $1 "* ]]
}

fail() {
  echo "error: $*" >&2
  exit 2
}

for stage in "$@"; do
  is_one_of "$stage" "$known" || fail "no stage $stage; there are$known"
done
systems=" diffuseq diffuseq-blind diffuseq-padded diffuseq-expected diffuseq-published diffusion-lm "
for system in ${SYSTEMS-}; do
  is_one_of "$system" "$systems" || fail "SYSTEMS=$system: no such system; there are$systems"
done
families=" mdlm d3pm d3pm-uniform d3pm-nearest sedd sedd-uniform flexible "
for family in ${FAMILIES-}; do
  is_one_of "$family" "$families" || fail "FAMILIES=$family: no such family; there are$families"
done
for k in ${K-}; do
  [[ $k =~ ^[1-9][0-9]*$ ]] || fail "K=$k: give numbers of steps, such as K=\"5 20\""
done
[ "${DRY_RUN-}" != 0 ] || DRY_RUN=
is_one_of "${DATA:-raw}" " raw distilled " || fail "DATA=$DATA: give raw or distilled"
[[ ${GPUS-0} =~ ^[0-9]+$ ]] || fail "GPUS=$GPUS: give a number of GPUs; 0 runs on the CPU"

scripts=$(dirname "${BASH_SOURCE[0]}")/../scripts
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
user_dir=$(difformer user-dir)
if [ -n "${GPUS-}" ]; then  # fairseq trains on all GPUs that it sees
  visible=${CUDA_VISIBLE_DEVICES-$(seq -s, 0 $((GPUS - 1)))}
  CUDA_VISIBLE_DEVICES=$(cut -d, -f "1-$((GPUS > 0 ? GPUS : 1))" <<<"$visible")
  [ "$GPUS" != 0 ] || CUDA_VISIBLE_DEVICES=
  export CUDA_VISIBLE_DEVICES
  IFS=, read -ra chosen <<<"$CUDA_VISIBLE_DEVICES"
  [ -n "${DRY_RUN-}" ] || [ ${#chosen[@]} = "$GPUS" ] ||
    fail "GPUS=$GPUS, but CUDA_VISIBLE_DEVICES names ${#chosen[@]}: give as many or fewer"
fi
gpus=${GPUS-$(python -c "import torch; print(torch.cuda.device_count())")}
precision=${PRECISION-$([ "$gpus" = 0 ] && echo --cpu || echo --fp16)}

# Print a command and run it.
do_it() {
  printf '\n$' && printf ' %q' "$@" && echo
  [ -n "${DRY_RUN-}" ] || "$@"
}

# Print a command and run it with its output in a file.
do_it_to() {
  local file=$1
  shift
  printf '\n$' && printf ' %q' "$@" && printf ' > %q\n' "$file"
  [ -n "${DRY_RUN-}" ] || { "$@" >"$file.unfinished" && mv "$file.unfinished" "$file"; }
}

# Options for batches of $1 tokens in total, whatever the number of GPUs.
batch() {
  local devices=$((gpus > 0 ? gpus : 1))
  local most=$((devices * max_tokens))
  local times=$((($1 + most - 1) / most))
  echo --max-tokens $(($1 / (devices * times))) --update-freq $times
}

# Run a training unless it is finished: fairseq would add one more update.
unless_finished() {
  local name=$1
  shift
  if [ -f "$out/$name/finished" ]; then
    echo "$out/$name is finished; remove $out/$name/finished to go on with it"
  elif [ -n "${DRY_RUN-}" ]; then
    do_it "$@"
  else
    do_it "$@" 2>&1 | tee -a "$out/$name.log"
    touch "$out/$name/finished"
  fi
}

# needs FILE STAGE: refuse to go on without the file, or folder, that a stage makes.
needs() {
  [ -n "${DRY_RUN-}" ] || [ -e "$1" ] || fail "$1: not there; run the stage $2 first"
}

# The data to train on: distilled if there is a teacher, else raw.
training_data() {
  case "${DATA-} $stages " in
    "raw "*) echo "$out/data-bin" ;;
    "distilled "* | *" distill "*) echo "$out/distilled" ;;
    *) echo "$out/data-bin" ;;
  esac
}

# The stage that makes these data.
maker_of_data() {
  [ "$(training_data)" = "$out/distilled" ] && echo distill || echo prepare
}

# If there is a teacher of this size, set `init` to the options that start a training from it, and
# `extras` to those that improve such a Difformer (benchmarks/multi30k.md).
init_options() {
  init=() extras=()
  if [ "$fits_teacher" = yes ] &&
    { [ -f "$out/teacher.pt" ] || [ "$(training_data)" = "$out/distilled" ]; }; then
    init=(--init-from-teacher "$out/teacher.pt")
    extras=(--clean-tokens 0.5 --time-sampling stratified --noises-per-sentence 2
      --soft-labels "$out/teacher.pt")
  fi
  [ -z "${INIT+given}" ] || { init=($INIT) && extras=(); }
  [ -z "${EXTRAS+given}" ] || extras=($EXTRAS)
}

prepare() {
  do_it difformer prepare "$recipe" --raw "$raw" --out "$out" \
    --source-lang "$source" --target-lang "$target" ${PREPARE-}
}

train_teacher() {
  needs "$out/data-bin" prepare
  unless_finished teacher fairseq-train "$out/data-bin" --user-dir "$user_dir" --task translation \
    $teacher --share-all-embeddings \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' \
    $(batch "$teacher_batch") --required-batch-size-multiple 1 $precision --seed 1 \
    --save-dir "$out/teacher" --keep-last-epochs 5 --log-format simple --log-interval 100 \
    ${TRAIN_TEACHER-}
  # With another teacher.pt, `distill` would start again.
  if [ -f "$out/teacher.pt" ]; then
    echo "$out/teacher.pt is kept; remove it and $out/distilled to distil with another average"
  else
    do_it difformer average "$out/teacher" --last "${TEACHER_AVERAGE-$teacher_average}" \
      --out "$out/teacher.pt"
  fi
}

distill() {
  needs "$out/teacher.pt" train_teacher
  do_it difformer distill "$out/data-bin" --teacher "$out/teacher.pt" --out "$out/distilled" \
    --beam 5 ${DISTILL-}
}

train() {
  local init extras
  needs "$(training_data)" "$(maker_of_data)"
  init_options
  unless_finished difformer fairseq-train "$(training_data)" \
    --user-dir "$user_dir" --task diffusion_translation \
    $difformer ${init[@]+"${init[@]}"} ${extras[@]+"${extras[@]}"} \
    ${RESCALING---rescaling-factor auto --max-dgs $max_dgs} \
    --criterion difformer_loss --label-smoothing 0.1 --length-loss-factor 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
    $(batch "$difformer_batch") $precision --seed 1 \
    --eval-bleu --eval-bleu-remove-bpe --decoding-steps 10 --decoding-early-stopping 2 \
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
    --save-dir "$out/difformer" --keep-best-checkpoints 5 --keep-last-epochs 1 --log-format simple --log-interval 100 \
    ${TRAIN-}
}

average() {
  needs "$out/difformer" train
  do_it difformer average "$out/difformer" --best "${AVERAGE_BEST-$average_best}" --out "$out/difformer.pt"
}

train_cmlm() {
  train_baseline cmlm "${CMLM_AVERAGE-$teacher_average}" --arch cmlm_transformer \
    --noise random_mask --pred-length-offset --length-loss-factor 0.1 ${TRAIN_CMLM-}
}

train_levenshtein() {
  train_baseline levenshtein "${LEVENSHTEIN_AVERAGE-$teacher_average}" \
    --arch levenshtein_transformer --noise random_delete ${TRAIN_LEVENSHTEIN-}
}

# train_baseline NAME AVERAGE OPTIONS: a model of fairseq's, of the same size and hyper-parameters,
# which starts from the teacher if Difformer does, and the average of its last checkpoints.
train_baseline() {
  local name=$1 average=$2 init extras start=()
  shift 2
  needs "$(training_data)" "$(maker_of_data)"
  init_options
  local training=("$(training_data)" --user-dir "$user_dir" --task translation_lev
    --criterion nat_loss $cmlm --share-all-embeddings
    --label-smoothing 0.1 --optimizer adam --adam-betas '(0.9, 0.98)'
    --weight-decay 0.01 --clip-norm 1.0
    $(batch "$difformer_batch") --required-batch-size-multiple 1 $precision --seed 1
    --save-dir "$out/$name" --keep-last-epochs 5 --log-format simple --log-interval 100 "$@")
  if [ -z "${INIT+given}" ] && [ ${#init[@]} -gt 0 ] && [ ! -f "$out/$name/finished" ]; then
    start=(--finetune-from-model "$out/$name-start.pt")
    [ -f "$out/$name/checkpoint_last.pt" ] ||
      do_it python "$scripts/init_baseline.py" "$out/teacher.pt" "$out/$name-start.pt" \
        "${training[@]}"
  fi
  unless_finished "$name" fairseq-train "${training[@]}" ${start[@]+"${start[@]}"}
  do_it difformer average "$out/$name" --last "$average" --out "$out/$name.pt"
}

# generate NAME --task TASK OPTIONS: translate the test set to OUT/NAME.out.
generate() {
  local name=$1 own="--required-batch-size-multiple 1"
  [ "$3" != diffusion_translation ] || own=${GENERATE-}
  shift
  do_it_to "$out/$name.out" fairseq-generate "$out/data-bin" --user-dir "$user_dir" \
    --gen-subset test --remove-bpe --batch-size 50 $precision "$@" $own
}

generate_cmlm() {
  generate cmlm --task translation_lev --path "$out/cmlm.pt" --iter-decode-max-iter 9 \
    --iter-decode-force-max-iter --iter-decode-with-beam 5
}

# Set `own` to the options of a family: d3pm-uniform is --objective d3pm --process uniform.
family_options() {
  local process=absorbing
  case "$1" in *-*) process=${1#*-} ;; esac
  own=(--objective "${1%%-*}" --process "$process")
  [ "$1" = flexible ] || own+=(--pred-length-offset)  # it predicts no length
  [ "$process" != nearest ] || own+=(--neighbour-embeddings "$out/teacher.pt")
}

# The same size and hyper-parameters as for Difformer.
train_discrete() {
  local family own init extras
  init_options
  needs "$(training_data)" "$(maker_of_data)"
  for family in ${FAMILIES-mdlm}; do
    family_options "$family"
    unless_finished "$family" fairseq-train "$(training_data)" \
      --user-dir "$user_dir" --task diffusion_translation \
      $discrete "${own[@]}" \
      ${init[@]+"${init[@]}"} --share-all-embeddings --criterion discrete_diffusion_loss \
      --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
      $(batch "$difformer_batch") $precision --seed 1 \
      --eval-bleu --eval-bleu-remove-bpe --decoding-steps 10 \
      --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
      --save-dir "$out/$family" --keep-best-checkpoints 5 --keep-last-epochs 1 --log-format simple --log-interval 100 \
      ${TRAIN_DISCRETE-}
    do_it difformer average "$out/$family" --best "${AVERAGE_BEST-$average_best}" --out "$out/$family.pt"
  done
}

evaluate_discrete() {
  local family k name ten baseline=
  if [ -f "$out/cmlm.pt" ]; then
    generate_cmlm
    score cmlm
    baseline=$out/cmlm.out
  fi
  for family in ${FAMILIES-mdlm}; do
    needs "$out/$family.pt" train_discrete
    do_it_to "$out/$family.bound" fairseq-validate "$out/data-bin" --user-dir "$user_dir" \
      --task diffusion_translation --path "$out/$family.pt" --valid-subset test \
      --batch-size 50 $precision --log-format simple
    ten="--length-beam-size 5 --noise-beam-size 2"
    [ "$family" != flexible ] || ten="--noise-beam-size 10"  # it chooses the length itself
    for k in ${K-20}; do
      name=$family-k$k
      generate "$name-b1" --task diffusion_translation --path "$out/$family.pt" --decoding-steps "$k"
      score "$name-b1" ${baseline:+--baseline "$baseline"}
      generate "$name-b10" --task diffusion_translation --path "$out/$family.pt" \
        --decoding-steps "$k" $ten --bleu-mbr
      score "$name-b10" ${baseline:+--baseline "$baseline"}
    done
  done
}

# Set `own` to the options of a joint system, and add to `init` what it leaves out of the teacher.
system_options() {
  local partial="--conditioning partial --restart-positions --plain-source"
  own=($partial --pred-length-offset)
  case "$1" in
    diffuseq) ;;
    diffuseq-blind) own+=(--blind-source) ;;
    diffuseq-padded) own=($partial --length-by-padding) ;;
    diffuseq-expected) own+=(--prediction expected_embedding) ;;
    diffusion-lm) own=(--conditioning full --restart-positions --pred-length-offset) ;;
    diffuseq-published)
      own=(--conditioning partial --pred-length-offset)
      [ ${#init[@]} -eq 0 ] || init+=(--init-parts embeddings)
      ;;
  esac
}

# The hyper-parameters of Difformer; the model starts as the teacher, if it fits.
train_joint() {
  local system own init extras
  needs "$(training_data)" "$(maker_of_data)"
  for system in ${SYSTEMS-diffuseq}; do
    init_options
    system_options "$system"
    unless_finished "$system" fairseq-train "$(training_data)" \
      --user-dir "$user_dir" --task diffusion_translation \
      $joint "${own[@]}" ${init[@]+"${init[@]}"} \
      ${RESCALING---rescaling-factor auto --max-dgs $max_dgs} \
      --criterion joint_diffusion_loss --label-smoothing 0.1 --length-loss-factor 0.1 \
      --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
      $(batch "$difformer_batch") $precision --seed 1 \
      --eval-bleu --eval-bleu-remove-bpe --decoding-steps 10 --decoding-early-stopping 2 \
      --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
      --save-dir "$out/$system" --keep-best-checkpoints 5 --keep-last-epochs 1 --log-format simple --log-interval 100 \
      ${TRAIN_JOINT-}
    do_it difformer average "$out/$system" --best "${AVERAGE_BEST-$average_best}" --out "$out/$system.pt"
  done
}

evaluate_joint() {
  local system name ten baseline=
  if [ -f "$out/teacher.pt" ]; then
    generate teacher --task translation --path "$out/teacher.pt" --beam 5
    score teacher
    baseline=$out/teacher.out
  fi
  for system in ${SYSTEMS-diffuseq}; do
    needs "$out/$system.pt" train_joint
    ten="--length-beam-size 5 --noise-beam-size 2"
    [ "$system" != diffuseq-padded ] || ten="--noise-beam-size 10"  # it finds the length itself
    for name in b1 b10 ar; do
      case $name in
        b1) own=() ;;
        b10) own=($ten --bleu-mbr) ;;
        ar) own=(--decoding-autoregressive) ;;
      esac
      generate "$system-$name" --task diffusion_translation --path "$out/$system.pt" \
        --decoding-steps 20 --decoding-early-stopping 5 ${own[@]+"${own[@]}"}
      score "$system-$name" ${baseline:+--baseline "$baseline"}
    done
  done
}

evaluate() {
  needs "$out/difformer.pt" average
  local name first=difformer-b10 baseline=difformer-b1 diffusion=(--task diffusion_translation
    --path "$out/difformer.pt" --decoding-steps 20 --decoding-early-stopping 5)
  generate difformer-b1 "${diffusion[@]}"
  do_it rm -f "$out/history.jsonl"
  generate difformer-b10 "${diffusion[@]}" --length-beam-size 5 --noise-beam-size 2 --bleu-mbr \
    --retain-iter-history --retain-z-0-hat --history-file "$out/history.jsonl"
  [ -z "$few_calls" ] || generate difformer-few --task diffusion_translation \
    --path "$out/difformer.pt" $few_calls --length-beam-size 7 --noise-beam-size 3 --bleu-mbr
  if [ -f "$out/cmlm.pt" ]; then
    generate_cmlm
    baseline=cmlm
  fi
  if [ -f "$out/levenshtein.pt" ]; then
    generate levenshtein --task translation_lev --path "$out/levenshtein.pt" \
      --iter-decode-max-iter 9
  fi
  if [ -f "$out/teacher.pt" ]; then
    generate teacher --task translation --path "$out/teacher.pt" --beam 5
    baseline=teacher
  fi
  for name in difformer-b1 difformer-few cmlm levenshtein teacher; do
    [ ! -f "$out/$name.out" ] || score "$name"
  done
  score "$first" --baseline "$out/$baseline.out" --history "$out/history.jsonl" \
    --html "$out/report.html"
}

# score NAME OPTIONS: evaluate OUT/NAME.out.
score() {
  local name=$1
  shift
  do_it difformer evaluate "$out/$name.out" --ref "$out/reference/test.$target" \
    --src "$out/reference/test.$source" $evaluation "$@" ${EVALUATE-}
}

for stage in "$@"; do
  "$stage"
done
