"""Fitting the weights of rerankers: what is drawn, kept, refused, chosen and written."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU
from test_expected_bleu import toy

from difformer_plugin.cli.tune import SEARCH_DEFAULTS, check
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.reranking.reranker import RERANKERS
from difformer_plugin.reranking.weighted import parse_weights
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning import rerank
from difformer_plugin.tuning.drawn import DrawnCandidates, bleu_statistics
from difformer_plugin.tuning.expected_bleu import bleu_of_choice, corpus_bleu
from difformer_plugin.tuning.report import render_weights, weights_comments
from difformer_plugin.tuning.trials import bleu

OPTIONS = DecodingOptions(
    decoding_steps=3, length_beam_size=2, noise_beam_size=2, rerank="mbr,length"
)


@pytest.fixture
def drawing(build, teacher, task, sentences, tmp_path):
    """A function that draws two batches, and counts what is drawn and scored."""
    models = [build(pred_length_offset=True), teacher]
    batches = [
        {
            "id": torch.arange(len(lengths)),
            "net_input": {"src_tokens": sentences(lengths)},
            "target": sentences(lengths, side="target"),
        }
        for lengths in ([4, 6], [5])
    ]

    def draw(journal, *names):
        generator = DiffusionGenerator(task.target_dictionary, OPTIONS, 1)
        calls = []

        def counted(name, function):
            def call(*args):
                calls.append(name)
                return function(*args)

            return call

        generator.draw = counted("draw", generator.draw)
        rerankers = {}
        for name in names:
            kind = RERANKERS[name](OPTIONS, task.target_dictionary)
            rerankers[name] = SimpleNamespace(name=name, scores=counted(name, kind.scores))
        drawn = DrawnCandidates(generator, models, batches, rerankers, journal)
        return SimpleNamespace(drawn=drawn, calls=calls, batches=batches, models=models)

    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        draw.journal = journal
        yield draw


def test_candidates_are_drawn_once_and_scored_once_by_each_reranker(drawing):
    first = drawing(drawing.journal, "mbr", "length")
    assert first.calls == ["draw", "mbr", "length"] * 2
    again = drawing(drawing.journal, "mbr", "length", "likelihood")
    assert again.calls == ["likelihood"] * 2
    assert again.drawn.tokens() == first.drawn.tokens()
    scores = again.drawn.scores()
    assert scores.shape == (3, 4, 3)
    assert np.array_equal(scores[..., :2], first.drawn.scores())


def test_choice_by_kept_scores_is_the_generators(drawing, task):
    """The first hypothesis of `generate` with these weights."""
    own = drawing(drawing.journal, "mbr", "length", "likelihood", "teacher", "own")
    weights = np.array([1, 0.3, 0.2, 0.5, -0.1])
    text = "mbr=1,length=0.3,likelihood=0.2,teacher=0.5,own=-0.1"
    options = DecodingOptions(decoding_steps=3, length_beam_size=2, noise_beam_size=2, rerank=text)
    generator = DiffusionGenerator(task.target_dictionary, options, 1)
    expected = [
        hypotheses[0]["tokens"].tolist()
        for batch in own.batches
        for hypotheses in generator.generate(own.models, batch)
    ]
    best = (own.drawn.scores() @ weights).argmax(1)
    assert [t[i] for t, i in zip(own.drawn.tokens(), best)] == expected


def test_statistics_are_those_of_the_text(task):
    dictionary = task.target_dictionary
    target = torch.tensor([0, 5, 6, 8, 9, 11, 2, 1])
    tokens = [[[0, 5, 6, 8, 9, 11, 2], [0, 5, 6, 12, 2]]]
    found = bleu_statistics(dictionary, tokens, [target], "@@ ")
    assert found.shape == (1, 2, 10)
    assert bleu(found[0, 0]) == pytest.approx(100) and bleu(found[0, 1]) < 60


def test_the_oracle_takes_the_best_sentence_bleu(task):
    """By sacrebleu's sentence_score; most of these have no common 4-gram with their reference."""
    dictionary, metric = task.target_dictionary, BLEU(tokenize="none", effective_order=True)
    generator = torch.Generator().manual_seed(4)
    targets, candidates, best = [], [], []
    for _ in range(40):
        target = torch.randint(4, 24, (9,), generator=generator)
        own = [target.clone() for _ in range(5)]
        for tokens in own:
            places = torch.randperm(9, generator=generator)[:5]
            tokens[places] = torch.randint(4, 24, (5,), generator=generator)
        texts = [dictionary.string(tokens) for tokens in [target, *own]]
        scores = [metric.sentence_score(text, texts[:1]).score for text in texts[1:]]
        frame = lambda tokens: [dictionary.bos(), *tokens.tolist(), dictionary.eos()]  # noqa: E731
        targets.append(torch.tensor(frame(target)))
        candidates.append([frame(tokens) for tokens in own])
        best.append(max(scores))
    statistics = bleu_statistics(dictionary, candidates, targets, "none")
    found = [
        metric.sentence_score(
            dictionary.string(torch.tensor(own[i][1:-1])), [dictionary.string(target[1:-1])]
        ).score
        for own, i, target in zip(candidates, rerank._oracle(statistics), targets)
    ]
    assert found == pytest.approx(best)


def test_the_fit_is_written_and_its_gain_estimated():
    scores, statistics = toy(200, 6, seed=1)
    quality = corpus_bleu(statistics)
    noise = np.random.default_rng(1).normal(size=(2, *quality.shape))
    scores = np.stack([quality / 20 + noise[0], quality / 20 + noise[1]], -1)
    result = rerank.fitted(["mbr", "own"], scores, statistics)
    weights = np.array(list(parse_weights(result["rerank"]).values()))
    assert result["bleu"] == pytest.approx(bleu_of_choice(scores, statistics, weights))
    best = max(result["alone"].values())
    assert result["oracle"] > result["bleu"] > best and result["left_out"] == []
    low, high = result["gain_interval"]
    assert low < result["cross_validated"] - best < high


def test_the_best_alone_is_written_where_others_gain_nothing():
    scores, statistics = toy(200, 4, seed=5)
    scores[..., 0] = corpus_bleu(statistics)
    scores[..., 1] = 3 * scores[..., 0]
    result = rerank.fitted(["mbr", "own"], scores, statistics)
    assert result["rerank"] == "mbr=1" and result["left_out"] == ["own"]
    assert result["bleu"] == result["alone"]["mbr"] == result["cross_validated"]
    args = Namespace(
        out="a.toml", gen_subset="valid", data="bin", path="m.pt", fit_rerank="mbr,own"
    )
    result |= {"sentences": 200, "version": "0"}
    table = render_weights(args, result)
    assert "left out, since they gain nothing: own" in table and "oracle" in table
    assert all("\n" not in line for line in weights_comments(args, result))


@pytest.mark.parametrize(
    "given, said",
    [
        ("mbr", "give at least two"),
        ("mbr,teach", "--fit-rerank mbr,teach: no such reranker as 'teach'"),
        ("mbr=1,length", "give names without weights"),
    ],
)
def test_names_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said) as error:
        rerank.parse_names(given)
    assert "\n" not in str(error.value)


def test_settings_that_leave_nothing_to_choose_from():
    names = ["mbr", "length"]
    options = rerank.candidate_options({"bleu_mbr": True, "decoding_steps": 5}, names, True)
    assert (options.rerank, options.bleu_mbr, options.decoding_steps) == ("mbr,length", False, 5)
    with pytest.raises(UserError, match="raise --length-beam-size or --noise-beam-size"):
        rerank.candidate_options({"length_beam_size": 1, "noise_beam_size": 1}, names, True)
    with pytest.raises(UserError, match="leave race_after and race_keep out"):
        rerank.candidate_options({"race_after": 3}, names, True)


@pytest.mark.parametrize("name", [*SEARCH_DEFAULTS, "bleu_mbr", "ppl_mbr"])
def test_options_that_the_fit_does_not_read_are_refused(name):
    args = Namespace(**SEARCH_DEFAULTS, fit_rerank="mbr,length", bleu_mbr=None, ppl_mbr=None)
    vars(args)[name] = 1
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}"):
        check(args)
