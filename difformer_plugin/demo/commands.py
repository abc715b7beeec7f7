"""The fairseq commands of the demonstration."""

from pathlib import Path

import torch

import difformer_plugin
from difformer_plugin.demo.settings import Settings

# For so few updates; the paper's F is 4. With the default weight of the length's loss some seeds do
# not begin to translate: its gradient makes the encoder's states alike (benchmarks/rescaling.md).
TRAIN = """
    --task diffusion_translation --arch difformer_paper_tiny --criterion difformer_loss
    --rescaling-factor 3 --length-loss-factor 0.01
    --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --clip-norm 1.0
    --lr 3e-3 --lr-scheduler cosine --warmup-updates 200
    --dropout 0 --max-tokens 2048
    --no-epoch-checkpoints --log-format simple --log-interval 50
"""
GENERATE = """
    --task diffusion_translation --gen-subset test
    --decoding-steps 20 --decoding-early-stopping 5
    --length-beam-size 3 --noise-beam-size 2 --bleu-mbr
    --retain-iter-history --retain-z-0-hat --batch-size 100
    --log-format simple --log-interval 1
"""


def fairseq_commands(settings: Settings) -> tuple[list[str], list[str], list[str]]:
    """fairseq-preprocess, fairseq-train and fairseq-generate, each as a list of words."""
    out = settings.out
    data, checkpoints = str(out / "data-bin"), str(out / "checkpoints")
    package = Path(difformer_plugin.__file__).resolve().parent
    if Path.cwd() in package.parents:
        package = package.relative_to(Path.cwd())
    user_dir = ["--user-dir", str(package)]
    device = [] if torch.cuda.is_available() else ["--cpu"]
    seed = ["--seed", str(settings.seed)]
    preprocess = ["fairseq-preprocess", "--joined-dictionary", "--destdir", data]
    preprocess += ["--source-lang", settings.source_lang, "--target-lang", settings.target_lang]
    for split in ("train", "valid", "test"):
        preprocess += [f"--{split}pref", str(out / "corpus" / "text" / split)]
    train = ["fairseq-train", data, *user_dir, *TRAIN.split(), "--save-dir", checkpoints]
    train += ["--max-update", str(settings.max_update), *seed, *device]
    generate = ["fairseq-generate", data, *user_dir, *GENERATE.split()]
    generate += ["--path", f"{checkpoints}/checkpoint_last.pt", *seed, *device]
    if settings.data is not None:
        generate += ["--remove-bpe"]
    return preprocess, train, generate
