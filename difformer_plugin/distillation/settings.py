"""What is distilled, with which teacher and options; and comparison with earlier work."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

RECEIPT = "distilled.receipt.json"  # in the folder of the result; not copied with it
LIKELIEST, BEST_BLEU = "likeliest", "best-bleu"  # values of --choose
FORMAT = 1  # of journal and manifest; work in another format is refused
SEARCH = ("beam", "lenpen", "max_len_a", "max_len_b")
PICK = ("choose",)
CUTS = ("max_tokens", "batch_size", "post_process")
CHOICES = ("on_failure", "add_raw", "seed")  # they apply after decoding


@dataclass(frozen=True)
class OwnSettings:
    """What `--self` adds: a model whose candidates compete with the present targets.

    Attributes:
        model: checkpoint of the diffusion model.
        raw: data-bin with the raw targets.
        bleu_weight: what a sentence BLEU of 1 counts beside the teacher's mean log-probability.
        mix: share of present pairs to append, 0 to 1.
        decoding: options of decoding that were given, name -> value.
        decoding_settings: file with more of them, or None.
    """

    model: str
    raw: Path
    bleu_weight: float
    mix: float
    decoding: dict[str, Any]
    decoding_settings: str | None


@dataclass(frozen=True)
class Settings:
    """What to distil; the fields are the options of `difformer distill`.

    Attributes:
        data: the data-bin.
        teacher: checkpoints; several are an ensemble.
        out: the data-bin to write.
        shard: this shard, from 0.
        shards: number of shards.
        split: the split whose targets are replaced.
        all_train_splits: also those of split1, split2, ..., which fairseq-train adds to the split.
        choose: which hypothesis becomes the target, LIKELIEST or BEST_BLEU.
        beam, lenpen, max_len_a, max_len_b: of beam search, as in fairseq.
        max_tokens: source tokens in a batch, at most.
        batch_size: sentences in a batch, at most.
        post_process: how subwords are joined, as in fairseq.
        on_failure: "keep", "drop" or "replace" the target where the teacher failed.
        add_raw: share of raw pairs to add, 0 to 1.
        seed: of the draw of raw pairs.
        precision: None (float32), "fp16" or "bf16".
        cpu: use the CPU even if there is a GPU.
        own: for self-distillation; `data` then has the present targets.
    """

    data: Path
    teacher: list[str]
    out: Path
    shard: int
    shards: int
    split: str
    all_train_splits: bool
    choose: str
    beam: int
    lenpen: float
    max_len_a: float
    max_len_b: int
    max_tokens: int
    batch_size: int
    post_process: str
    on_failure: str
    add_raw: float
    seed: int
    precision: str | None
    cpu: bool
    own: OwnSettings | None = None

    def search(self) -> dict[str, Any]:
        """Fields of fairseq's GenerationConfig."""
        return {name: vars(self)[name] for name in SEARCH}

    def named_splits(self) -> dict[str, Any]:
        """What is distilled, in the words of journal and manifest."""
        added = {"--all-train-splits": True} if self.all_train_splits else {}
        return {"split": self.split, **added}

    def named(self, *names: str) -> dict[str, Any]:
        """The values of these fields under the names of their options."""
        return {flag(name): vars(self)[name] for name in names}


def parse_shard(text: str) -> tuple[int, int]:
    """The numbers I and N of --shard I/N.

    Raises:
        UserError: they are not numbers, or I is not less than N.
    """
    shard, _, count = text.partition("/")
    if shard.isdecimal() and count.isdecimal() and int(shard) < int(count):
        return int(shard), int(count)
    raise UserError(
        f"--shard {text}: give I/N with I from 0 to N - 1, as 0/3, 1/3 and 2/3 on three machines"
    )


_ADDED = {
    "--choose": LIKELIEST,
    "--all-train-splits": False,
}  # options that came after FORMAT, and their defaults
_DIFFERENT = {
    "data": "other data",
    "teacher": "another teacher",
    "model": "another --self model",
    "raw": "other raw targets",
    "format": "another version of this command",
}


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """How two settings differ, in words; empty if they are equal.

    An option that they lack was added later, and had its default.

    Args:
        theirs, ours: values of options, and hashes of data and teacher, by name.
    """
    theirs, ours = {**_ADDED, **theirs}, {**_ADDED, **ours}
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return ", ".join(
        _DIFFERENT.get(name) or f"{name} {theirs.get(name)} instead of {ours.get(name)}"
        for name in names
    )
