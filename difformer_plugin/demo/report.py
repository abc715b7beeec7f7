"""What `difformer demo` says at its end: the output of fairseq-generate, scored and laid out."""

import shlex
from itertools import groupby

from difformer_plugin.data.tokenisation import detokeniser
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import parse_outputs as parse_outputs
from difformer_plugin.evaluation.outputs import sentences_by_changes

EXAMPLES = 10


def translations(outputs, count, language):
    """The detokenised translations in the order of the test set; all `count` must be there."""
    best = outputs.best
    missing = [number for number in range(count) if number not in best]
    if missing or len(best) != count:
        raise UserError(
            f"fairseq-generate translated {len(best)} sentences where the test set has "
            f"{count} (without a translation: {missing[:5] or 'none'}): nothing is scored"
        )
    detokenise = detokeniser(language)
    return [detokenise(best[number]) for number in range(count)]


def score(hypotheses, references):
    """Corpus BLEU on detokenised text, as one line with sacreBLEU's signature."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU()
    result = bleu.corpus_score(hypotheses, [references])
    return result.format(signature=bleu.get_signature().format())


def limits(hypotheses, references):
    """What is left: lines that count the exact outputs, and score right and wrong lengths apart."""
    pairs = list(zip(hypotheses, references, strict=True))
    exact = sum(hypothesis == reference for hypothesis, reference in pairs)
    lines = [f"exactly the reference: {exact} of {len(pairs)} sentences"]
    by_length = {True: [], False: []}
    for hypothesis, reference in pairs:
        by_length[len(hypothesis.split()) == len(reference.split())].append((hypothesis, reference))
    names = {True: "with the reference's number of words", False: "with another number"}
    for same, some in by_length.items():
        if some:
            bleu = score(*map(list, zip(*some, strict=True))).split(" = ")[1].split()[0]
            lines.append(f"{names[same]}: {len(some)} sentences, BLEU {bleu}")
    return lines


def choose_emergence(outputs):
    """Number of the sentence whose output changed most often between first and last step.

    None where no sentence ended otherwise than it began.
    """
    return next(iter(sentences_by_changes(outputs.steps)), None)


def render_emergence(steps):
    """One line a change: `step 3-5  the text`."""
    lines, start = [], 1
    for text, run in groupby(steps):
        end = start + len(list(run)) - 1
        lines.append(f"  step {start if start == end else f'{start}-{end}':<7} {text}")
        start = end + 1
    return lines


def render_examples(sources, references, hypotheses):
    """Source, reference and output of ten sentences spread over the test set."""
    distance = max(1, len(sources) // EXAMPLES)
    lines = []
    for number in range(0, len(sources), distance)[:EXAMPLES]:
        lines += [
            f"  source     {sources[number]}",
            f"  reference  {references[number]}",
            f"  output     {hypotheses[number]}",
            "",
        ]
    return lines


def render_stages(stages):
    """Commands and wall times of the stages, each (name, command, seconds, skipped)."""
    lines = ["Commands"]
    lines += [f"  {show(command)}" for _, command, _, _ in stages if command]
    lines += ["", "Wall time"]
    for name, _, seconds, skipped in stages:
        note = "  (done in an earlier run)" if skipped else ""
        lines.append(f"  {name:<20}{seconds:9.1f} s{note}")
    return lines


def show(command):
    """A command as one would type it."""
    return shlex.join(command)


def render(stages, pairs, outputs, language):
    """The whole report as text.

    Args:
        stages: see `render_stages`.
        pairs: (source, reference) of the test set, raw.
        outputs: Outputs.
        language: the target's, for detokenisation.
    """
    sources, references = zip(*pairs, strict=True)
    hypotheses = translations(outputs, len(pairs), language)
    lines = render_stages(stages)
    lines += [
        "",
        f"Quality on {len(pairs)} test sentences, detokenised, against the raw references",
    ]
    lines += [f"  {score(hypotheses, list(references))}"]
    lines += [f"  {line}" for line in limits(hypotheses, list(references))]
    lines += ["", "Examples"]
    lines += render_examples(sources, references, hypotheses)
    number = choose_emergence(outputs)
    if number is None:
        lines += ["How a sentence emerges: no output changed between its first and last step"]
    else:
        lines += ["How a sentence emerges", f"  source       {sources[number]}"]
        lines += render_emergence(outputs.steps[number])
    return "\n".join(lines) + "\n"
