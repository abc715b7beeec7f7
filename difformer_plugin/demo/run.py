"""The work of `difformer demo`: from raw text to a scored translation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from difformer_plugin.data import pipeline
from difformer_plugin.data import recipe as recipes
from difformer_plugin.data.preparation import fingerprint, prepare
from difformer_plugin.data.recipe import Recipe
from difformer_plugin.data.resumable_pass import cores
from difformer_plugin.data.sources import read_lines
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.demo.commands import fairseq_commands
from difformer_plugin.demo.report import render
from difformer_plugin.demo.settings import Settings
from difformer_plugin.demo.stages import Stages
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import parse_outputs
from difformer_plugin.storage.files import atomic_text, read_object


def run_demo(settings: Settings) -> str:
    """Run the stages that are not done yet, and write the report to `out/report.txt`.

    Returns:
        the report.
    Raises:
        UserError: a stage fails, or `out` holds a run on another corpus.
    """
    out = settings.out
    key = corpus_key(settings)
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages(out)
    stages.corpus(key, lambda: prepare_corpus(settings))
    preprocess, train, generate = fairseq_commands(settings)
    # fairseq-preprocess refuses to run where an interrupted one has left dictionaries.
    if not stages.is_done("fairseq-preprocess", preprocess):
        for dictionary in (out / "data-bin").glob("dict.*.txt"):
            dictionary.unlink()
    stages.command(preprocess)
    check_training(settings)
    pipeline.copy(out / "corpus" / "text", out / "data-bin")
    for command in (train, generate):
        stages.command(command)

    outputs = parse_outputs(read_lines(stages.log("fairseq-generate")))
    test = [out / "corpus" / "reference" / f"test.{lang}" for lang in settings.langs]
    pairs = list(zip(*map(read_lines, test), strict=True))
    report = render(stages.done, pairs, outputs, settings.target_lang)
    with atomic_text(out / "report.txt") as handle:
        handle.write(report)
    return report


def check_training(settings: Settings) -> None:
    """Note with what options the training begins, which an interrupted one resumes.

    Raises:
        UserError: it has begun with another seed, or was to make more updates.
    """
    folder = settings.out / "checkpoints"
    record = folder / "training.json"
    if record.exists():
        begun = read_object(record, f"remove {folder}")
        if begun.get("seed") != settings.seed or begun.get("max_update", 0) > settings.max_update:
            raise UserError(
                f"{settings.out} holds a training run with --seed {begun.get('seed')} and "
                f"--max-update {begun.get('max_update')}: give another --out (with make: "
                f"OUT=FOLDER), or remove {folder}"
            )
    with atomic_text(record) as handle:
        json.dump({"seed": settings.seed, "max_update": settings.max_update}, handle)


def load_recipe(data: Path | None) -> Recipe:
    """The recipe for plain text: whole words for the synthetic corpus, subwords for other data."""
    recipe = recipes.load("plain")
    return recipe if data is not None else replace(recipe, bpe_merges=0)


def corpus_key(settings: Settings) -> Any:
    """What the tokenised corpus depends on: the generator's options, or the user's files."""
    if settings.data is None:
        return ["synthetic", settings.corpus_seed, settings.train_size, settings.test_size]
    return fingerprint(load_recipe(settings.data), settings.data, settings.langs)


def prepare_corpus(settings: Settings) -> None:
    """Write tokenised text to `out/corpus/text`."""
    raw = settings.data or settings.out / "raw"
    if settings.data is None:
        sizes = settings.train_size, settings.test_size, settings.test_size
        write_corpus(raw, settings.corpus_seed, *sizes)
    recipe = load_recipe(settings.data)
    prepare(recipe, raw, settings.out / "corpus", settings.langs, cores())
