"""Tiny dictionaries and models for the unit tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: all here is tiny

from argparse import Namespace
from types import SimpleNamespace

import hypothesis
import pytest
import torch
from tiny import SIZES, make_dictionary

# The same examples in each run, and no folder of examples in the checkout.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


@pytest.fixture
def task():
    """What a model is built for: two dictionaries that differ."""
    return SimpleNamespace(
        source_dictionary=make_dictionary([f"s{i}" for i in range(15)]),
        target_dictionary=make_dictionary([f"t{i}" + "@@" * (i % 3 == 0) for i in range(20)]),
    )


@pytest.fixture
def joined_task():
    """Two equal dictionaries."""
    words = [f"w{i}" for i in range(20)]
    return SimpleNamespace(
        source_dictionary=make_dictionary(words), target_dictionary=make_dictionary(words)
    )


@pytest.fixture
def build(task):
    """A function that builds a tiny model, in evaluation mode; its weights are always the same."""
    from difformer_plugin.families.embeddings.config import DifformerConfig
    from difformer_plugin.families.embeddings.model import Difformer

    def build(task=task, **options):
        torch.manual_seed(0)
        return Difformer.build_model(DifformerConfig(**(SIZES | options)), task).eval()

    return build


@pytest.fixture
def build_joint(joined_task):
    """As `build`, of a joint model."""
    from difformer_plugin.families.joint.config import JointDiffusionConfig
    from difformer_plugin.families.joint.model import JointDiffusion

    def build_joint(task=joined_task, **options):
        sizes = {name: value for name, value in SIZES.items() if not name.startswith("encoder_")}
        torch.manual_seed(0)
        model = JointDiffusion.build_model(JointDiffusionConfig(**(sizes | options)), task).eval()
        if options.get("restart_positions"):  # 0 at first, which would mark nothing
            model.denoiser.target_half.data.normal_()
        return model

    return build_joint


@pytest.fixture
def build_discrete(task, tmp_path):
    """As `build`, of a discrete diffusion model; what its process knows of the data is made up."""
    from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
    from difformer_plugin.families.tokens.model import DiscreteDiffusion

    def build_discrete(task=task, **options):
        dictionary, random = task.target_dictionary, torch.Generator().manual_seed(4)
        task.target_counts = lambda: torch.arange(len(dictionary)).double() + 1
        if options.get("process") == "nearest" and "neighbour_embeddings" not in options:
            path = tmp_path / "vectors.txt"
            vectors = torch.randn(len(dictionary), 3, generator=random).tolist()
            lines = (" ".join(map(str, row)) for row in zip(dictionary.symbols, *zip(*vectors)))
            path.write_text("\n".join(lines))
            options |= {"neighbour_embeddings": str(path), "neighbours": 2}
        torch.manual_seed(0)
        cfg = DiscreteDiffusionConfig(**(SIZES | {"diffusion_steps": 8} | options))
        model = DiscreteDiffusion.build_model(cfg, task)
        model.prepare_training(task)
        return model.eval()

    return build_discrete


@pytest.fixture
def sentences(task):
    """A function that makes a batch: random tokens framed by BOS and EOS, padded on one side."""

    def sentences(lengths, side="source", left=None, seed=0):
        dictionary = getattr(task, f"{side}_dictionary")
        left = side == "source" if left is None else left
        random = torch.Generator().manual_seed(seed)
        batch = torch.full((len(lengths), max(lengths) + 2), dictionary.pad())
        for row, length in zip(batch, lengths):
            words = torch.randint(dictionary.nspecial, len(dictionary), (length,), generator=random)
            framed = [dictionary.bos(), *words.tolist(), dictionary.eos()]
            place = slice(-len(framed), None) if left else slice(len(framed))
            row[place] = torch.tensor(framed)
        return batch

    return sentences


@pytest.fixture
def teacher(task):
    """A tiny autoregressive Transformer of fairseq's, in evaluation mode."""
    from fairseq.models.transformer import TransformerModel, base_architecture

    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "embed_dim": 16,
            "ffn_embed_dim": 24,
            "layers": 2,
            "attention_heads": 2,
        }.items()
    }
    args = Namespace(**sizes, max_source_positions=40, max_target_positions=40)
    base_architecture(args)
    torch.manual_seed(3)
    return TransformerModel.build_model(args, task).eval()


def pytest_collection_modifyitems(items):
    """Tests with the fixture `cuda` have the mark `gpu`."""
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def cuda():
    """A GPU's device; without one the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device("cuda")
