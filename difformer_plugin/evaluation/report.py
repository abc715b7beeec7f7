"""The HTML report of `difformer evaluate`: tables, plots and sentences in one file."""

from collections.abc import Sequence
from html import unescape
from os import PathLike

from difformer_plugin.evaluation.history import History, display_pieces, mean_probability
from difformer_plugin.evaluation.inputs import System, TestSet
from difformer_plugin.evaluation.outputs import sentences_by_changes
from difformer_plugin.evaluation.plots import inline_svg
from difformer_plugin.evaluation.table import slope_test, span_of
from difformer_plugin.storage.files import atomic_text

NUM_STEPWISE = 6  # sentences shown step by step
NUM_EXAMPLES = 8  # sentences in each group of examples
MAX_LENGTH_ERROR = 10  # in tokens; larger errors share the outermost bar
NUM_SHADES = 5  # of the probability of a token


def write_report(
    path: str | PathLike,
    result: dict,
    test_set: TestSet,
    systems: Sequence[System],
    history: History | None = None,
    sentences: bool = True,
) -> None:
    """Write the report atomically.

    Args:
        result: see `results.evaluate`.
        history: see `history.read_history`.
        sentences: include example sentences; without them, the page contains no corpus text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("difformer_plugin.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = [
        {"title": title, "note": note, "svg": Markup(inline_svg({"title": title, **panel}))}
        for title, note, panel in _panels(result, history)
    ]
    page = environment.get_template("report.html.j2").render(
        result=result,
        names=("system", "baseline")[: len(systems)],
        plots=plots,
        span_of=span_of,
        slope_test=slope_test,
        sentences=sentences,
        stepwise=_stepwise(test_set, systems[0], history) if sentences else [],
        has_history=history is not None,
        has_steps=systems[0].steps is not None,
        examples=_examples(result, test_set, systems) if sentences else {},
        shades=NUM_SHADES,
    )
    with atomic_text(path) as handle:
        handle.write(page)


def _panels(result, history):
    """(title, note, panel) of each plot for which there is data."""
    names = result["systems"]
    if buckets := result["bleu_by_length"]:
        places = list(range(len(buckets)))
        yield (
            "BLEU by source length",
            "Tokenised BLEU of the sentences in each bucket.",
            {
                "x_label": "source words",
                "y_label": "BLEU",
                "series": [
                    (name, places, [bucket["bleu"][i] for bucket in buckets])
                    for i, name in enumerate(names)
                ],
                "ticks": (places, [span_of(bucket) for bucket in buckets]),
            },
        )
    curves = [(name, curve) for name, curve in zip(names, result["bleu_by_step"]) if curve]
    if curves:
        yield (
            "BLEU by decoding step",
            "Tokenised BLEU of the output recorded at each step: ẑ_0 with --retain-z-0-hat (Fig. 4 "
            "of the Difformer paper), z_t without it.",
            {
                "x_label": "step",
                "y_label": "BLEU",
                "series": [(name, list(range(1, len(curve) + 1)), curve) for name, curve in curves],
            },
        )
    if history is not None:
        means = mean_probability(history)
        yield (
            "Confidence by decoding step",
            "Mean softmax probability of the tokens, from --history.",
            {
                "x_label": "step",
                "y_label": "probability",
                "series": [(names[0], list(range(1, len(means) + 1)), means)],
            },
        )
    yield _length_panel(names, result["length_errors"])
    if fit := result["regression"]:
        yield _regression_panel(fit)


def _length_panel(names, errors):
    """A histogram in percent, whose outermost bars include all larger errors."""
    found = [error for own in errors for error in own["counts"]]
    largest = min(MAX_LENGTH_ERROR, max(max(map(abs, found)), 1))
    places = list(range(-largest, largest + 1))
    series = []
    for name, own in zip(names, errors):
        total = sum(own["counts"].values())
        shares = dict.fromkeys(places, 0.0)
        for error, count in own["counts"].items():
            shares[max(-largest, min(largest, error))] += 100 * count / total
        series.append((name, places, [shares[place] for place in places]))
    labels = [f"{place:+d}" if place else "0" for place in places]
    if max(map(abs, found)) > largest:
        labels[0], labels[-1] = f"≤{labels[0]}", f"≥{labels[-1]}"
    step = 1 if largest <= 5 else 2 if largest % 2 == 0 else largest
    return (
        "Length errors",
        "Tokens of the translation minus tokens of the reference.",
        {
            "kind": "bar",
            "x_label": "excess tokens (negative: too short)",
            "y_label": "% of sentences",
            "series": series,
            "ticks": (places[::step], labels[::step]),
        },
    )


def _regression_panel(fit):
    lengths, means, counts = zip(*fit["mean_by_length"])
    ends = [lengths[0], lengths[-1]]
    return (
        "Relative difference by source length",
        "(a − b) / max(a, b), where a and b are the sentence BLEU of the system and of the "
        "baseline. Each dot is the mean over sentences of one length, and its area grows with "
        "their number; the line is fitted to all sentences.",
        {
            "kind": "dot",
            "x_label": "source words",
            "y_label": "relative difference",
            "series": [("mean", lengths, means)],
            "sizes": [10 + 90 * count / max(counts) for count in counts],
            "fit": (ends, [fit["intercept"] + fit["slope"] * end for end in ends]),
            "zero": True,
        },
    )


def _stepwise(test_set, system, history):
    """The sentences that change most often from step to step, with all their steps."""
    if system.steps is None and history is None:
        return []
    if history is not None:
        steps = {number: [display_pieces(step) for step in own] for number, own in history.items()}
        texts = {
            number: [[text for text, *_ in step] for step in own] for number, own in steps.items()
        }
    else:
        texts = dict(enumerate(system.steps))
        steps = {
            number: [[(word, None, i > 0) for i, word in enumerate(step.split())] for step in own]
            for number, own in texts.items()
        }
    return [
        {
            "number": number,
            "source": test_set.sources[number] if test_set.sources else None,
            "reference": test_set.references[number],
            "steps": [
                [
                    {
                        "text": unescape(text),  # Moses tokens have &apos; for '
                        "space": space,
                        "probability": probability,
                        "shade": None if probability is None else _shade(probability),
                    }
                    for text, probability, space in step
                ]
                for step in steps[number]
            ],
        }
        for number in sentences_by_changes(texts)[:NUM_STEPWISE]
    ]


def _shade(probability):
    """The class of a probability, from 0 (lowest) to NUM_SHADES - 1, all of equal width."""
    return min(int(probability * NUM_SHADES), NUM_SHADES - 1)


def _examples(result, test_set, systems):
    """Groups of examples: the worst sentences of one system, or the largest differences of two."""
    scores = result["sentence_bleu"]
    order = range(len(scores[0]))
    if len(systems) == 1:
        groups = {"Lowest sentence BLEU": sorted(order, key=lambda i: scores[0][i])}
    else:
        ahead = sorted(order, key=lambda i: scores[1][i] - scores[0][i])
        groups = {
            "The system is ahead": [i for i in ahead if scores[0][i] > scores[1][i]],
            "The baseline is ahead": [i for i in ahead[::-1] if scores[1][i] > scores[0][i]],
        }
    return {
        title: [
            {
                "number": i,
                "source": test_set.sources[i] if test_set.sources else None,
                "reference": test_set.references[i],
                "texts": [(system.texts[i], own[i]) for system, own in zip(systems, scores)],
            }
            for i in numbers[:NUM_EXAMPLES]
        ]
        for title, numbers in groups.items()
        if numbers
    }
