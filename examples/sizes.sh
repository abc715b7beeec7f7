# Model sizes with their training hyper-parameters; the run.sh of a data set chooses one.
#
# Each function sets `teacher`, `difformer`, `discrete`, `joint` and `cmlm` to options of fairseq-train,
# and `teacher_batch` and `difformer_batch` to the tokens per update on all devices together. The presets
# difformer_paper* carry the paper's recipe; discrete diffusion and CMLM get the same positions and
# initialisation. `stages` are the default stages of the data set.
# `fits_teacher` says whether diffusion models can start from the teacher: both need the same sizes
# and positions. The paper's do not fit, since their embeddings have dimension 128 and their positions
# are learned. `teacher_average` and `average_best` are the numbers of checkpoints to average, and
# `few_calls` are the options that translate in few calls of the network, if they were measured.
recipe="--self-cond --rescale-timesteps --embed-norm --embed-norm-affine"  # of joint sequences
learned="--apply-bert-init --encoder-learned-pos --decoder-learned-pos"
stages="prepare train_teacher distill train average train_cmlm evaluate"
max_tokens=8192 max_dgs=0.15 evaluation= fits_teacher=no
teacher_average=5 average_best=5 few_calls=

schedule() { # LR WARMUP UPDATES
  echo "--lr $1 --lr-scheduler inverse_sqrt --warmup-updates $2 --max-update $3"
}

cosine() { # LR WARMUP UPDATES
  echo "--lr $1 --lr-scheduler cosine --warmup-updates $2 --max-update $3"
}

# The paper's Table 21, IWSLT14.
iwslt() {
  teacher="--arch transformer_iwslt_de_en --dropout 0.3 --weight-decay 1e-4 --clip-norm 0
    $(schedule 5e-4 4000 100000)"
  teacher_batch=8192
  difformer="--arch difformer_paper_iwslt_de_en $(schedule 5e-4 10000 300000)"
  discrete="--arch discrete_diffusion_iwslt_de_en --dropout 0.3 $learned
    $(schedule 5e-4 10000 300000)"
  joint="--arch joint_diffusion_iwslt_de_en --dropout 0.3 --apply-bert-init --decoder-learned-pos
    $recipe $(schedule 5e-4 10000 300000)"
  difformer_batch=8192
  cmlm="--encoder-ffn-embed-dim 1024 --encoder-attention-heads 4
    --decoder-ffn-embed-dim 1024 --decoder-attention-heads 4 --dropout 0.3 $learned
    $(schedule 5e-4 10000 300000)"
}

# The paper's Table 21, WMT14, WMT16 and Gigaword.
base() {
  teacher="--arch transformer --dropout 0.1 --weight-decay 0 --clip-norm 0
    $(schedule 7e-4 4000 100000)"
  teacher_batch=32768
  difformer="--arch difformer_paper $(schedule 5e-4 10000 300000)"
  discrete="--arch discrete_diffusion --dropout 0.1 $learned $(schedule 5e-4 10000 300000)"
  joint="--arch joint_diffusion --dropout 0.1 --apply-bert-init --decoder-learned-pos $recipe
    $(schedule 5e-4 10000 300000)"
  difformer_batch=65536
  cmlm="--dropout 0.1 $learned $(schedule 5e-4 10000 300000)"
}

# The paper's Table 21, QQP, Wiki-Auto and Quasar-T. The paper trains on the raw targets here, so the
# teacher, its distillation and CMLM run only if their stages are named.
wide() { # LR WARMUP UPDATES BATCH
  stages="prepare train average evaluate"
  teacher="--arch transformer --dropout 0.1 --weight-decay 0 --clip-norm 0
    $(schedule 5e-4 4000 "$3")"
  teacher_batch=$4
  difformer="--arch difformer_paper_base $(schedule "$1" "$2" "$3")"
  discrete="--arch discrete_diffusion_base --dropout 0.1 $learned $(schedule "$1" "$2" "$3")"
  joint="--arch joint_diffusion_base --dropout 0.1 --apply-bert-init --decoder-learned-pos $recipe
    $(schedule "$1" "$2" "$3")"
  difformer_batch=$4
  cmlm="--encoder-embed-dim 768 --encoder-ffn-embed-dim 3072 --encoder-attention-heads 12
    --decoder-embed-dim 768 --decoder-ffn-embed-dim 3072 --decoder-attention-heads 12
    --dropout 0.1 $learned $(schedule "$1" "$2" "$3")"
}

# For a CPU, as measured in benchmarks/multi30k.md: small batches, and a learning rate that falls to
# zero in a given number of updates.
small() { # UPDATES
  local layers="--encoder-layers 4 --encoder-attention-heads 4
    --decoder-layers 4 --decoder-attention-heads 4"
  local schedule="$(cosine 2e-3 200 "$1") --validate-interval 3"
  max_tokens=4096 fits_teacher=yes teacher_average=3 average_best=1
  few_calls="--decoding-steps 3 --collapse-repeats --length-scale 1.07"
  teacher="--arch transformer $layers --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --dropout 0.2 --clip-norm 1.0
    $(cosine 3e-3 400 "$1")"
  teacher_batch=2048
  local diffusion="--model-dim 128 --latent-dim 128 $layers
    --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --dropout 0.1 $schedule"
  difformer="--arch difformer_paper_tiny $diffusion"
  discrete="--arch discrete_diffusion $diffusion"
  joint="--arch joint_diffusion_tiny --model-dim 128 --latent-dim 128 --decoder-layers 8
    --decoder-ffn-embed-dim 512 --dropout 0.1 $recipe $schedule"
  difformer_batch=2500
  cmlm="$layers --encoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --dropout 0.1 $(cosine 2e-3 200 "$1")"
}

# For small corpora on a GPU: 14 million parameters.
medium() {
  local size="--encoder-layers 6 --decoder-layers 6
    --encoder-attention-heads 4 --decoder-attention-heads 4
    --encoder-ffn-embed-dim 1024 --decoder-ffn-embed-dim 1024"
  local dims="--encoder-embed-dim 256 --decoder-embed-dim 256"
  fits_teacher=yes
  teacher="--arch transformer $size $dims --dropout 0.3 --clip-norm 1.0 $(schedule 2e-3 2000 8000)"
  teacher_batch=8192
  local diffusion="--model-dim 256 --latent-dim 256 $size --dropout 0.2
    $(schedule 1e-3 4000 40000)"
  difformer="--arch difformer_paper_tiny $diffusion"
  discrete="--arch discrete_diffusion $diffusion"
  joint="--arch joint_diffusion_tiny --model-dim 256 --latent-dim 256 --decoder-layers 12
    --decoder-ffn-embed-dim 1024 --dropout 0.2 $recipe $(schedule 1e-3 4000 40000)"
  difformer_batch=8192
  cmlm="$size $dims --dropout 0.2 $(schedule 1e-3 4000 40000)"
}

# The size in $SIZE, for data sets that offer a choice.
small_or_medium() { # UPDATES of the small size
  case "${SIZE-small}" in
    small) small "$1" ;;
    medium) medium ;;
    *) echo "error: SIZE=$SIZE: give small or medium" >&2 && exit 2 ;;
  esac
}
