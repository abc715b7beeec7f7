"""Whether a training begins to read its source: the first updates of `sqrt-15`, watched.

    python benchmarks/steady_start.py OUT/data-bin [--seed 2] [--updates 300] [--tokens 512]
        [--length-loss-factor 0.01] [--sg-length-pred] [OTHER OPTIONS OF MODEL AND CRITERION]

OUT is the folder of examples/rescaling/run.sh. Every 50 updates it prints, of 60 validation
sentences, the spread of the encoder's states (the standard deviation around their mean over all
tokens), the anchor loss, and by how much that grows with another sentence's source, in nats per
token.
"""

import argparse
import logging
import math

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from difformer_plugin import register
from difformer_plugin.tasks.source_check import with_other_sources

RECIPE = """
    --task diffusion_translation --arch difformer_tiny --criterion difformer_loss
    --share-all-embeddings --noise-schedule sqrt --rescaling-factor 4
    --embed-norm --embed-norm-affine --self-cond --rescale-timesteps --pred-length-offset
    --dropout 0
"""
LR, WARM_UP, MAX_UPDATE = 3e-3, 200, 1600


def learning_rate(update):
    """That of the recipe's cosine schedule."""
    if update <= WARM_UP:
        return LR * update / WARM_UP
    return LR / 2 * (1 + math.cos(math.pi * (update - WARM_UP) / (MAX_UPDATE - WARM_UP)))


@torch.no_grad()
def watch(model, criterion, sample):
    """Spread, anchor loss, and its growth with other sentences' sources."""
    model.eval()
    losses = []
    for each in (sample, with_other_sources(sample)):
        _, tokens, logged = criterion(model, each)
        losses.append(float(logged["anchor_nll"]) / tokens)
    source = sample["net_input"]["src_tokens"]
    states = model.encoder(source).states[source.ne(model.encoder.pad)]
    spread = (states - states.mean(0)).std().item()
    model.train()
    return spread, losses[0], losses[1] - losses[0]


def main():
    """Train, and print a line every 50 updates."""
    own = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    own.add_argument("--updates", type=int, default=300)
    own.add_argument("--tokens", type=int, default=512)
    own.add_argument("--seed", type=int, default=2)
    args, more = own.parse_known_args()
    logging.disable(logging.WARNING)
    register()
    words = [*more, *RECIPE.split(), "--optimizer", "adam", "--max-tokens", str(args.tokens)]
    parsed = options.parse_args_and_arch(options.get_training_parser(), words)
    cfg = convert_namespace_to_omegaconf(parsed)
    torch.manual_seed(args.seed)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    for split in ("train", "valid"):
        task.load_dataset(split)
    valid = task.dataset("valid")
    sample = valid.collater([valid[i] for i in range(60)])
    batches = task.get_batch_iterator(
        task.dataset("train"),
        max_tokens=args.tokens,
        max_positions=model.max_positions(),
        seed=args.seed,
    ).next_epoch_itr(shuffle=True)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    for update, batch in zip(range(1, args.updates + 1), batches):
        adam.param_groups[0]["lr"] = learning_rate(update)
        loss, tokens, _ = criterion(model.train(), batch)
        adam.zero_grad()
        (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        if update % 50 == 0:
            spread, anchor, gain = watch(model, criterion, sample)
            print(f"{update:5} spread {spread:.3f} anchor {anchor:.2f} gain {gain:.3f}", flush=True)


if __name__ == "__main__":
    main()
