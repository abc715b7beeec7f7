"""The generator on models of discrete diffusion: batches, precision, empty sources, histories."""

import json

import pytest
import torch
from discrete_kinds import DECODINGS, KINDS

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions

BOS, EOS = 0, 2
LENGTHS = [5, 2, 9, 4, 7]
STEPS = 5
every_sampler = pytest.mark.parametrize("name, options, temperature", DECODINGS)


@pytest.fixture
def translate(task):
    def translate(model, source, history=False, **options):
        options = DecodingOptions(**({"decoding_steps": STEPS} | options))
        own = DiffusionGenerator(task.target_dictionary, options, 1, history)
        own.check_models([model])
        return own.generate([model], {"net_input": {"src_tokens": source}, "id": torch.arange(5)})

    return translate


def tokens_of(hypotheses):
    return [[h["tokens"].tolist() for h in candidates] for candidates in hypotheses]


@every_sampler
def test_a_translation_does_not_depend_on_its_batch(
    build_loud, translate, sentences, name, options, temperature
):
    model, source = build_loud(name), sentences(LENGTHS)
    options = options | {"decoding_temperature": temperature}
    if temperature:
        options |= {"noise_beam_size": 3, "bleu_mbr": name == "mdlm"}
    if name != "flexible":
        options |= {"length_beam_size": 2}
    whole = tokens_of(translate(model, source, **options))
    order = torch.tensor([3, 0, 4, 2, 1])
    assert tokens_of(translate(model, source[order], **options)) == [whole[i] for i in order]
    assert tokens_of(translate(model, source[1:2], **options)) == [whole[1]]


@pytest.mark.parametrize("name", KINDS)
def test_a_model_in_half_precision_translates(build_loud, translate, sentences, name):
    model = build_loud(name).bfloat16()
    assert len(tokens_of(translate(model, sentences(LENGTHS), decoding_temperature=0.5))) == 5


@pytest.mark.parametrize("name", ["mdlm", "d3pm uniform", "flexible"])
def test_empty_sources_and_histories(build_loud, translate, sentences, tmp_path, name):
    model, path = build_loud(name), tmp_path / f"{name}.jsonl"
    hypotheses = translate(
        model,
        sentences([5, 0, 3, 2, 4]),
        history=True,
        history_file=str(path),
        decoding_temperature=0.5,
    )
    assert hypotheses[1][0]["tokens"].tolist() == [BOS, EOS]
    assert hypotheses[1][0]["positional_scores"].shape == (2,)
    steps = STEPS + (name == "flexible")
    for (best,) in hypotheses:
        assert best["score"] == pytest.approx(best["positional_scores"].mean().item(), abs=1e-6)
        assert len(best["history"]) == steps
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines
