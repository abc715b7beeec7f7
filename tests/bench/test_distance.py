"""benchmarks/distance.py: the BLEU of what each reranker chooses from parts of a beam."""

import importlib.util
import sys
from argparse import Namespace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.text import to_text
from difformer_plugin.evaluation.metrics import sacre_bleu
from difformer_plugin.reranking.mbr import bleu_scores

SCRIPT = Path(__file__).parents[2] / "benchmarks/distance.py"
REFERENCES = ["A man is riding a red bicycle.", "Two dogs run over the green grass ."]
TEXTS = [
    ["A man is riding a bicycle .", "A man rides a red bicycle .", "a a a", "Man is red ."],
    ["Two dogs run .", "Two dogs run over grass .", "Two cats run over the green grass .", "b"],
]


@pytest.fixture
def distance(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("distance", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("common", None)


@pytest.fixture
def scorer(distance, tmp_path):
    path = tmp_path / "test.en"
    path.write_text("\n".join(REFERENCES) + "\n", "utf-8")
    return distance.Scorer(str(path))


@pytest.fixture
def beams(distance):
    """Two lengths with two noises each."""
    own = [[-1.0, -0.5, -0.1, -2.0], [-0.3, -0.2, -0.9, -3.0]]
    length = [[-0.5, -0.5, -4.0, -4.0], [-2.0, -2.0, -0.1, -0.1]]
    return [distance.Beam(i, TEXTS[i], {"own": own[i], "length": length[i]}) for i in range(2)]


def bleu(scorer, numbers):
    """sacreBLEU of one text a sentence."""
    texts = [scorer.detokenise(own[i]) for own, i in zip(TEXTS, numbers)]
    return sacre_bleu("en").corpus_score(texts, [REFERENCES]).score


@pytest.mark.parametrize("part", [[0, 1, 2, 3], [0, 2], [1]])
def test_each_column_is_the_bleu_of_its_own_choice(scorer, beams, part):
    columns = ["mbr", "own", "length", "mbr=1,own=0.5,length=0.1"]
    found = scorer.by_choice(beams, part, columns)
    choices = []
    for beam in beams:
        texts = [beam.texts[i] for i in part]
        mbr = np.array(bleu_scores(texts))
        own, length = (np.array(beam.scores[name])[part] for name in ("own", "length"))
        every = [mbr, own, length, mbr / 100 + 0.5 * own + 0.1 * length]
        choices.append([part[int(scores.argmax())] for scores in every])
    expected = [bleu(scorer, numbers) for numbers in zip(*choices)]
    assert found[:-1] == pytest.approx(expected)


def test_the_oracle_takes_the_best_sentence(scorer, beams):
    """With two sentences no pair of candidates is better than the oracle's by much."""
    *_, oracle = scorer.by_choice(beams, range(4), ["own"])
    best = [max(range(4), key=lambda i: scorer.sentence_bleu(TEXTS[s][i], s)) for s in range(2)]
    assert oracle == pytest.approx(bleu(scorer, best))
    every = [bleu(scorer, pair) for pair in product(range(4), repeat=2)]
    assert oracle > max(every) - 5


def test_candidates_are_those_of_the_generator(
    distance, build, teacher, task, sentences, monkeypatch
):
    """Their texts and scores; a teacher is used only where there is one."""
    model = build(pred_length_offset=True)
    source, target = sentences([4, 6, 3]), sentences([5, 5, 5], side="target")
    sample = {"id": torch.arange(3), "net_input": {"src_tokens": source}, "target": target}
    monkeypatch.setattr(distance, "batches", lambda dataset, numbers, size: [sample])
    dataset = [{"target": row} for row in target]
    own_task = SimpleNamespace(
        dataset=lambda name: dataset, target_dictionary=task.target_dictionary
    )
    args = Namespace(subset="test", steps=4, early_stopping=1, batch_size=3)
    drawing = distance.Drawing(args, [model, teacher], own_task, np.arange(3))
    assert drawing.num_tokens == [5, 5, 5]
    assert "teacher" in drawing.names and "likelihood" in drawing.names
    assert "teacher" not in distance.Drawing(args, [model], own_task, np.arange(3)).names
    beams = drawing.draw(2, 2)
    for name, text in (("teacher", "teacher"), ("likelihood", "likelihood"), ("mbr", "mbr")):
        options = DecodingOptions(
            decoding_steps=4,
            decoding_early_stopping=1,
            length_beam_size=2,
            noise_beam_size=2,
            rerank=text,
        )
        generator = DiffusionGenerator(task.target_dictionary, options, distance.SEED)
        for beam, best in zip(beams, generator.generate([model, teacher], sample)):
            scores = beam.scores.get(name) or distance.mbr_scores([beam.texts])[0]
            texts = [to_text(task.target_dictionary, h["tokens"], "@@ ") for h in best]
            assert beam.texts[int(np.argmax(scores))] == texts[0]
            assert sorted(beam.texts) == sorted(texts)


def test_columns(distance):
    names = ["mbr", "own", "length"]
    assert distance.choosers(names, None) == [*names, "mbr=1,length=0.1"]
    every = distance.choosers([*names, "teacher"], None)
    assert every[4:] == list(distance.WEIGHTED)
    assert distance.choosers(names, ["own=1,mbr=2"]) == [*names, "own=1,mbr=2"]
    with pytest.raises(SystemExit, match="teacher cannot be had"):
        distance.choosers(names, ["mbr=1,teacher=1"])
