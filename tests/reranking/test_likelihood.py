"""The model's own likelihood of a candidate, against closed forms, and in other batches."""

import math

import pytest
import torch
from discrete_kinds import FIXED

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.noise import SentenceNoise, sentence_keys
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layout import Layout
from difformer_plugin.reranking.likelihood import TIMES, OwnLikelihood, own_likelihoods
from difformer_plugin.reranking.options import build_reranker
from difformer_plugin.reranking.reranker import Batch, Candidate

SCORED = [name for name in FIXED if not name.startswith("sedd")]


@pytest.fixture(params=["embeddings", "joint", *SCORED])
def model(request, build, build_joint, build_discrete):
    others = {"embeddings": build, "joint": build_joint}
    if request.param in others:
        return others[request.param](self_cond=True)
    return build_discrete(**FIXED[request.param])


def candidate(length, seed):
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 24, (length,), generator=random)
    tokens[0], tokens[-1] = 0, 2
    return Candidate(tokens, torch.zeros(length))


def scores(model, task, src_tokens, candidates):
    memory = model.encoder(src_tokens)
    return OwnLikelihood(None, task.target_dictionary).scores(
        Batch([model], src_tokens, memory, candidates)
    )


@torch.no_grad()
def test_score_is_a_function_of_the_sentence_and_the_candidate(model, task, sentences):
    """The same in another batch, at another place in it, and beside other candidates."""
    src_tokens = sentences([4, 9, 6])
    sets = [[candidate(5 + i, 3 * s + i) for i in range(3)] for s in range(3)]
    together = scores(model, task, src_tokens, sets)
    for s, length in enumerate([4, 9, 6]):
        alone = src_tokens[s : s + 1, -length - 2 :]
        twice = [*reversed(sets[s]), sets[s][0]]
        expected = [*reversed(together[s]), together[s][0]]
        assert scores(model, task, alone, [twice])[0] == pytest.approx(expected, abs=1e-4)
    assert len({round(x, 4) for own in together for x in own}) > 5


@torch.no_grad()
def test_many_sentences_are_scored_in_parts(build, task, sentences, monkeypatch):
    model, src_tokens = build(), sentences([5] * 7)
    sets = [[candidate(6, i)] for i in range(7)]
    whole = scores(model, task, src_tokens, sets)
    monkeypatch.setattr("difformer_plugin.reranking.likelihood.TOKENS", 13)
    for one, other in zip(scores(model, task, src_tokens, sets), whole):
        assert one == pytest.approx(other, abs=1e-5)


@torch.no_grad()
def test_closed_form_of_a_model_that_knows_the_posterior(build, task, sentences):
    """Two types with embeddings of +a and -a in one direction, and the exact posterior of them.

    With z_t = m e(y) + d noise, log p(y | z_t) of a uniform prior is -log(1 + exp(-2 m a u / d^2)),
    u being z_t along e(y) / a. Its mean over the noise is an integral over one normal variable.
    """
    model, (time,) = build(), (0.4,)
    process = model.process
    k = int(time * len(process))
    m = math.sqrt(process.alphas_cumprod[k])
    d = process.noise_scale * math.sqrt(1 - process.alphas_cumprod[k])
    table = torch.zeros(len(task.target_dictionary), model.cfg.latent_dim)
    a = 3.0
    table[4, 0], table[5, 0] = a, -a
    model.denoiser.embed = lambda tokens: table[tokens]

    def log_probs(tokens, z):
        return torch.nn.functional.logsigmoid(2 * m / d**2 * (z * table[tokens]).sum(1))

    model.denoiser.log_probs = log_probs
    model.predict = lambda z, time, layout, conditions, previous: z
    src_tokens = sentences([5] * 40)
    keys = sentence_keys(src_tokens, 1, 1)
    targets = [[[4, 5] * 50] for _ in range(40)]
    found = own_likelihoods(model, model.encoder(src_tokens), keys, targets, (time,))
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    values = torch.nn.functional.logsigmoid(2 * m * a / d**2 * (m * a + d * x))
    expected = (density * values).sum().item() * (x[1] - x[0]).item()
    drawn = torch.tensor(found)
    error = drawn.std().item() / math.sqrt(len(found))
    assert drawn.mean().item() == pytest.approx(expected, abs=4 * error)
    assert error < 0.1 * abs(expected)


@torch.no_grad()
def test_mean_over_tokens_and_times(model, task, sentences):
    """Against a loop over candidates and times, each alone."""
    src_tokens = sentences([5])
    memory, keys = model.encoder(src_tokens), sentence_keys(src_tokens, 1, 1)
    draw = next(iter(model.samplers().values())).draw_noise
    noise = SentenceNoise(keys, torch.zeros_like(keys), draw)
    own, expected = [candidate(6, 1), candidate(8, 2)], []
    for tokens, _ in own:
        layout = Layout([len(tokens)], [0], tokens.device)
        found = []
        for k, time in enumerate(TIMES):
            z_t = model.corrupt(tokens, time, noise(k, (len(tokens), model.noise_dim))[0], layout)
            prediction = model.predict(z_t, time, layout, model.conditions(memory), None)
            found.append(model.log_probs(tokens, z_t, prediction).mean())
        expected.append(torch.stack(found).mean().item())
    whole = own_likelihoods(model, memory, keys, [[c.tokens.tolist() for c in own]])
    assert whole == pytest.approx(expected, abs=1e-4) and max(whole) < 0


@torch.no_grad()
def test_masking_scores_only_what_it_hides(build_discrete, task, sentences):
    model = build_discrete(objective="mdlm", process="absorbing")
    tokens = candidate(9, 1).tokens
    noise = torch.linspace(0, 1, 9)[:, None].expand(-1, model.noise_dim)
    x_t = model.corrupt(tokens, 0.5, noise, Layout([9], [0], tokens.device))
    hidden = x_t.tokens == model.vocabulary.mask
    assert 0 < hidden.sum() < 7 and not hidden[0] and not hidden[-1]
    assert torch.equal(x_t.tokens[~hidden], tokens[~hidden])
    prediction = torch.randn(9, model.cfg.latent_dim)
    found = model.log_probs(tokens, x_t, prediction)
    assert torch.equal(found != 0, hidden)
    logits = model.logits(prediction)[hidden]
    expected = logits.log_softmax(-1).gather(1, tokens[hidden, None] - model.vocabulary.first_type)
    assert torch.allclose(found[hidden], expected[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"objective": "sedd", "process": "uniform"}, {"objective": "flexible"}],
)
def test_models_that_cannot_are_refused_in_one_line(build_discrete, task, options):
    reranker = build_reranker(DecodingOptions(rerank="mbr,likelihood"), task.target_dictionary)
    with pytest.raises(UserError, match="--rerank likelihood: .*leave it out") as error:
        reranker.check([build_discrete(**options)])
    assert "\n" not in str(error.value)
