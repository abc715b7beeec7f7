"""A tiny corpus, binarised once, and tiny models trained on it once, for all of these tests."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from harness import DISCRETE, OPTIMISER, SENTENCES, TRAIN, binarise, lines, load, redraw, succeed

from difformer_plugin.data import recipe
from difformer_plugin.data.preparation import prepare
from difformer_plugin.data.synthetic.grammar import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Raw and tokenised text in subwords, their codes, and data-bins with one and two dictionaries.

    `other` is the same text under a dictionary of the same size in another order, `smaller` under
    a part of it.
    """
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "raw", 1, 200, SENTENCES, SENTENCES)
    plain = replace(recipe.load("plain"), bpe_merges=400)
    prepare(plain, folder / "raw", folder, ("de", "en"), progress=False)
    joined = binarise(folder / "text", folder / "joined", "--joined-dictionary")
    separate = binarise(folder / "text", folder / "separate")
    symbols = (joined / "dict.de.txt").read_text("utf-8").splitlines(keepends=True)
    (folder / "reversed.txt").write_text("".join(reversed(symbols)), "utf-8")
    other = binarise(
        folder / "text",
        folder / "other",
        *("--srcdict", folder / "reversed.txt", "--joined-dictionary"),
    )
    smaller = binarise(
        folder / "text", folder / "smaller", "--joined-dictionary", "--nwordssrc", 300
    )
    return SimpleNamespace(
        raw=folder / "raw",
        text=folder / "text",
        codes=folder / "text" / "codes",
        joined=joined,
        separate=separate,
        other=other,
        smaller=smaller,
    )


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory):
    """A model trained for 60 updates: its folder and what fairseq-train said."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = succeed(
        folder,
        *("fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"),
        *("--max-update", 60, "--save-dir", folder, "--tensorboard-logdir", folder / "board"),
        *("--eval-bleu", "--eval-bleu-args", '{"decoding_steps": 3}', "--eval-bleu-remove-bpe"),
        *("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"),
    )
    return SimpleNamespace(folder=folder, checkpoint=folder / "checkpoint_last.pt", log=outcome.out)


@pytest.fixture(scope="session")
def model(trained, tmp_path_factory):
    """A checkpoint whose translations differ from sentence to sentence and from noise to noise.

    After 60 updates all are "the the the", and equal outputs would mean nothing.
    """
    path = tmp_path_factory.mktemp("model") / "model.pt"
    checkpoint = load(trained.checkpoint)
    redraw(checkpoint["model"])
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def discrete_model(corpus, tmp_path_factory):
    """Discrete diffusion with some options, trained for a few updates, once.

    Returns:
        a function from the options to the checkpoint `trained`, the checkpoint `model` whose
        translations differ as those of the fixture of that name, and the `log` of fairseq-train.
    """
    made = {}

    def call(*options):
        if options not in made:
            folder = tmp_path_factory.mktemp("discrete")
            outcome = succeed(
                folder,
                *("fairseq-train", corpus.joined, *DISCRETE, *options, "--max-update", 6),
                *("--save-dir", folder, "--eval-bleu", "--eval-bleu-remove-bpe"),
                *("--eval-bleu-args", '{"decoding_steps": 2}'),
            )
            path = folder / "checkpoint_last.pt"
            checkpoint = load(path)
            redraw(checkpoint["model"])
            torch.save(checkpoint, folder / "model.pt")
            made[options] = SimpleNamespace(
                trained=path, model=folder / "model.pt", log=outcome.out
            )
        return made[options]

    return call


def train_teacher(data, folder, *options):
    """fairseq's Transformer, trained for a few updates."""
    succeed(
        folder,
        *("fairseq-train", data, "--task", "translation", "--arch", "transformer", "--cpu"),
        *("--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 16, "--encoder-layers", 1),
        *("--decoder-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--decoder-layers", 1),
        *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
        *("--criterion", "cross_entropy", "--required-batch-size-multiple", 1),
        *(*OPTIMISER.split(), "--max-update", 10, "--save-dir", folder, *options),
    )
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def teacher(corpus, tmp_path_factory):
    """An autoregressive model with the same dictionaries."""
    return train_teacher(corpus.joined, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def other_vectors(corpus, tmp_path_factory):
    """A text file of random vectors of the types of the joined dictionary."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    symbols = [line.split()[0] for line in lines(corpus.joined / "dict.en.txt")]
    vectors = torch.randn(1 + len(symbols), 8, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [f"{s} {' '.join(f'{x:.4f}' for x in v)}" for s, v in zip(["<unk>", *symbols], vectors)]
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def other_teacher(corpus, tmp_path_factory):
    """An autoregressive model with other dictionaries."""
    return train_teacher(corpus.separate, tmp_path_factory.mktemp("other_teacher"))
