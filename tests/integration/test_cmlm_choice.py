"""benchmarks/cmlm_choice.py: its candidates are fairseq's, and it measures choices among them."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import succeed
from sacrebleu.metrics import BLEU
from test_init_baseline import OPTIONS, start_from

from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.evaluation.moses import MosesText
from difformer_plugin.evaluation.outputs import parse_outputs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_own_score_chooses_what_fairseq_chooses(corpus, teacher, tmp_path, capsys):
    cmlm = start_from(teacher, tmp_path, corpus)
    reference = corpus.raw / "test.en"
    command = (cmlm, "--ref", reference, "--lengths", 3, "--length-scales", 1, 1.3)
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "cmlm_choice.py", corpus.joined, *map(str, command)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    expected = []
    for beam in ((), ("--iter-decode-with-beam", 3)):
        options = ("--task", "translation_lev", "--path", cmlm, "--iter-decode-max-iter", 9)
        outcome = succeed(
            tmp_path,
            *(
                "fairseq-generate",
                corpus.joined,
                *OPTIONS[:2],
                *options,
                "--iter-decode-force-max-iter",
            ),
            *("--iter-decode-force-max-iter", "--remove-bpe", "--batch-size", 50, "--cpu", *beam),
            *("--required-batch-size-multiple", 1),
        )
        best = parse_outputs(outcome.out.splitlines()).best
        detokenise = MosesText("en", lowercase=False).detokenise
        texts = [detokenise(best[number]) for number in sorted(best)]
        references = [reference.read_text("utf-8").splitlines()]
        expected.append(BLEU().corpus_score(texts, references).score)
    assert [float(x) for x in rows[2][2:4]] == pytest.approx(expected, abs=0.005)
    assert [row[:2] for row in rows[2:6]] == [
        *(["1", "kept"], ["1", "dropped"], ["1.3", "kept"], ["1.3", "dropped"])
    ]
    for row in rows[2:6]:
        assert float(row[-1]) >= max(map(float, row[2:5]))  # the oracle


def test_lengths_are_changed_within_the_context_alone(monkeypatch):
    """A predicted length of 12 has ten tokens besides BOS and EOS."""
    import torch

    monkeypatch.syspath_prepend(BENCHMARKS)
    from cmlm_choice import lengths_changed

    class Decoder:
        def forward_length_prediction(self, logits):
            return logits.argmax(-1) + FRAME

    decoder, logits = Decoder(), torch.eye(11)[[10, 4]]
    with lengths_changed(decoder, 1.2, -1):
        assert decoder.forward_length_prediction(logits).tolist() == [13, 6]
    assert decoder.forward_length_prediction(logits).tolist() == [12, 6]
