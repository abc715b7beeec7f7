"""The model card of an exported model: README.md, for its author to complete."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difformer_plugin import __version__
from difformer_plugin.data.pipeline import Pipeline
from difformer_plugin.errors import UserError

CARD = "README.md"
OPEN = "_to be filled in_"


@dataclass(frozen=True)
class Card:
    """What is known of a model.

    Attributes:
        name: of the folder.
        title: what the family is called.
        parameters: their number.
        updates: of training.
        pipeline: of its text.
        decoding: the settings of decoding that are exported with it, by option.
        scores: what `difformer evaluate --json` printed, or None.
    """

    name: str
    title: str
    parameters: int
    updates: int
    pipeline: Pipeline
    decoding: Mapping[str, Any]
    scores: Mapping[str, Any] | None


def read_scores(path: Path) -> dict[str, Any]:
    """Read what `difformer evaluate --json` printed.

    Raises:
        UserError: the file holds something else.
    """
    try:
        scores = json.loads(path.read_text("utf-8"))
        for metric in scores["metrics"]:
            str(metric["label"]), metric.get("signature")
            metric["scores"][0] = float(metric["scores"][0])
        int(scores["sentences"]), str(scores["systems"][0])
    except OSError as error:
        raise UserError(f"--scores {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise UserError(
            f"--scores {path} is not what `difformer evaluate --json` prints: redirect its output "
            "to a file"
        ) from None
    return scores


def render_card(card: Card) -> str:
    """The card as Markdown."""
    source, target = card.pipeline.source_lang, card.pipeline.target_lang
    lines = [
        *("---", "language:", f"- {source}", f"- {target}", "license:  # to be filled in"),
        *("tags:", "- translation", "- diffusion", "---", ""),
        *(f"# {card.name}", ""),
        f"This is {card.title} that translates from `{source}` to `{target}`: "
        f"{card.parameters:,} parameters, {card.updates:,} updates.",
        *("", "## Use", "", "With difformer-plugin installed:", "", "```bash"),
        *(f"difformer translate {card.name} < text.{source} > text.{target}", "```", ""),
        f"It was exported by difformer-plugin {__version__}. `from_pretrained` and "
        "`fairseq-generate --path model.safetensors` load it, too.",
        *("", "## Data", "", *_data(card.pipeline)),
        *("", "## Scores", "", *_scores(card.scores)),
        *_decoding(card.decoding),
        *("", "## Licence", "", f"- of the weights: {OPEN}", f"- of the training data: {OPEN}"),
        *("", "## Limits", "", f"Intended use, known errors and biases: {OPEN}"),
    ]
    return "\n".join(lines) + "\n"


def _data(pipeline: Pipeline) -> list[str]:
    """Sentences about the training data and their processing."""
    text, subwords = pipeline.text, pipeline.subwords
    corpus = pipeline.corpus or OPEN
    steps = [
        "normalised punctuation" if text.normalise_punctuation else "",
        "Moses tokens" if text.tokenise else "tokens separated by blanks",
        "lower-cased" if text.lowercase else "",
        {"bpe": "joint BPE (`codes`)", "sentencepiece": "SentencePiece"}.get(
            subwords.kind, "whole words"
        ),
    ]
    published = f" ({pipeline.published})" if "://" in pipeline.published else ""
    return [
        f"- corpus: {corpus}{published}",
        f"- text: {', '.join(filter(None, steps))}; the details are in `pipeline.json`",
        f"- selection, distillation and other changes: {OPEN}",
    ]


def _scores(scores: Mapping[str, Any] | None) -> list[str]:
    """A table of scores with their signatures."""
    if scores is None:
        return [f"{OPEN} (`difformer export --scores` takes those of `difformer evaluate --json`)"]
    lines = [f"On {scores['sentences']:,} sentences ({scores['systems'][0]}):", ""]
    lines += ["| metric | score | signature |", "|---|---:|---|"]
    for metric in scores["metrics"]:
        signature = f"`{metric['signature']}`" if metric.get("signature") else ""
        lines.append(f"| {metric['label']} | {metric['scores'][0]:.2f} | {signature} |")
    return lines


def _decoding(decoding: Mapping[str, Any]) -> list[str]:
    """The settings of decoding, if there are any."""
    if not decoding:
        return []
    shown = ", ".join(f"`{name}` = {value}" for name, value in decoding.items())
    return ["", "## Decoding", "", f"By default, from `decoding.toml`: {shown}."]
