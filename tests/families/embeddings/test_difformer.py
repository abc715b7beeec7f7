"""Difformer: its training step, its variants of embeddings, and what decoding asks of it."""

import copy
import math

import pytest
import torch

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.schedules import alphas_cumprod
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.networks.building import build_embedding
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout


def watch(model):
    """The arguments and results of the denoiser's calls, as they come."""
    calls, denoise = [], model.denoiser.denoise

    def watched(*args):
        calls.append((*args, denoise(*args)))
        return calls[-1][-1]

    model.denoiser.denoise = watched
    return calls


# evaluation mode


@pytest.mark.parametrize("self_cond", [False, True])
def test_evaluation_does_not_depend_on_the_batch(build, sentences, self_cond):
    model = build(self_cond=self_cond)
    source, target = sentences([5, 2, 9, 4, 7, 1]), sentences([3, 6, 8, 5, 9, 2], "target")
    with torch.no_grad():
        whole, again = model(source, target), model(source, target)
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        shuffled = model(source[order], target[order])
        assert torch.equal(whole.z_0_hat, again.z_0_hat)
        of_sentence = whole.z_0_hat.split(whole.mask.sum(1).tolist())
        expected = torch.cat([of_sentence[i] for i in order])
        torch.testing.assert_close(shuffled.z_0_hat, expected)
        for row in range(6):
            alone = model(
                source[row : row + 1, source[row].ne(1)], target[row : row + 1, target[row].ne(1)]
            )
            torch.testing.assert_close(alone.z_0_hat, of_sentence[row])
            torch.testing.assert_close(alone.length_logits[0], whole.length_logits[row])
            assert alone.length_classes[0] == whole.length_classes[row]


def test_evaluation_times_and_noise_are_those_of_training(build, sentences):
    """Uniform times, standard normal noise, half of the sentences conditioned."""
    model = build(self_cond=True)
    source = sentences([6] * 2000)
    t, noise, conditioned = model._draw(source, torch.zeros(2000, 4, 8))
    counts = torch.bincount(t, minlength=50).double()
    assert counts.numel() == 50
    assert ((counts - 40).square() / 40).sum() < 49 + 4 * math.sqrt(2 * 49)  # chi squared
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    assert abs(noise.var().item() - 1) < 4 * math.sqrt(2 / noise.numel())
    assert abs(conditioned.double().mean().item() - 0.5) < 4 * math.sqrt(0.25 / 2000)


# training mode


def test_training_corrupts_by_equation_3(build, sentences):
    count, factor = 1500, 4.0
    model = build(rescaling_factor=factor, dropout=0.0).train()
    calls = watch(model)
    target = sentences([3] * count, "target")
    output = model(sentences([4] * count), target)
    (z_t, t, layout, context, previous, z_0_hat) = calls[0]
    assert len(calls) == 1 and not previous.any() and torch.equal(z_0_hat, output.z_0_hat)
    assert layout.mask.all() and context.mask.sum(1).tolist() == [6] * count
    expected = 8**0.5 * model.denoiser.embed_tokens.weight[target.flatten()]
    torch.testing.assert_close(output.z_0, expected)

    counts = torch.bincount(t, minlength=50).double()
    assert counts.numel() == 50
    assert ((counts - count / 50).square() / (count / 50)).sum() < 49 + 4 * math.sqrt(2 * 49)
    alpha_bar = torch.from_numpy(alphas_cumprod("sqrt", 50))[t][:, None, None]
    z_t, z_0 = (z.view(count, 5, 8) for z in (z_t, output.z_0))
    noise = (z_t - alpha_bar.sqrt() * z_0) / (factor * (1 - alpha_bar).sqrt())
    root = math.sqrt(noise.numel())
    assert abs(noise.mean().item()) < 4 / root
    assert abs(noise.square().mean().item() - 1) < 4 * math.sqrt(2) / root
    assert abs(noise.pow(4).mean().item() - 3) < 4 * math.sqrt(96) / root
    noised_again = model(sentences([4] * count), target)
    assert not torch.allclose(noised_again.z_0_hat, output.z_0_hat)


def test_each_process_of_a_training_draws_its_own_times_and_noise(build, sentences, monkeypatch):
    """fairseq seeds them all alike."""
    model, source = build(self_cond=True).train(), sentences([4] * 40)

    def draws(rank):
        monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *group: rank)
        torch.manual_seed(5)
        return [model._draw(source, torch.zeros(40, 5, 8)) for _ in range(2)]

    first, again, other = draws(0), draws(0), draws(1)
    for drawn, same in zip(first, again):
        assert all(map(torch.equal, drawn, same))
    distinct = [*first, *other]
    for i, drawn in enumerate(distinct):
        for earlier in distinct[:i]:
            assert not any(map(torch.equal, drawn, earlier))


def test_training_conditions_half_of_the_sentences_on_a_first_prediction(build, sentences):
    count = 400
    model = build(self_cond=True, dropout=0.0).train()
    calls = watch(model)
    model(sentences([4] * count), sentences([3] * count, "target"))
    first, second = calls
    z_t, t, layout, context, previous, _ = second
    conditioned = previous.view(count, -1).any(1)
    assert abs(conditioned.sum().item() - count / 2) < 4 * math.sqrt(count / 4)
    assert len(first[0]) == 5 * conditioned.sum() and not first[4].any()
    assert not previous.requires_grad
    with torch.no_grad():
        expected = model.denoiser.denoise(z_t, t, layout, context, torch.zeros_like(z_t))
    of_conditioned = conditioned[layout.rows]
    torch.testing.assert_close(previous[of_conditioned], expected[of_conditioned])


def test_length_classes_are_of_the_real_lengths(build, sentences):
    output = build(pred_length_offset=True)(sentences([5, 2]), sentences([3, 6], "target"))
    assert output.length_classes.tolist() == [128 + 3 - 5, 128 + 6 - 2]
    absolute = build()(sentences([5, 2]), sentences([3, 6], "target"))
    assert absolute.length_classes.tolist() == [5, 8]


def test_gradient_reaches_the_target_embeddings_through_both_sides(build, sentences):
    """z_0 is learned: the error's target carries gradient as its prediction does."""
    for part in ("z_0", "z_0_hat"):
        model = build().train()
        target = sentences([3, 6], "target")
        getattr(model(sentences([5, 2]), target), part).square().sum().backward()
        moved = model.denoiser.embed_tokens.weight.grad.any(1).nonzero().flatten().tolist()
        assert moved == sorted({*target.flatten().tolist()} - {model.denoiser.pad})


def test_gradient_reaches_every_parameter(build, sentences):
    model = build(self_cond=True, embed_norm=True, embed_norm_affine=True).train()
    output = model(sentences([5] * 8), sentences([6] * 8, "target"))
    logits = model.denoiser.output_projection(output.z_0_hat)
    (logits.square().sum() + output.length_logits.square().sum()).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias of keys shifts all scores of a softmax alike
    assert not [name for name in untouched if not name.endswith("k_proj.bias")]


# embeddings


def test_tables_of_separate_dictionaries(build, task):
    model = build()
    assert model.encoder.embed_tokens.weight.shape == (len(task.source_dictionary), 8)
    assert model.denoiser.embed_tokens.weight.shape == (len(task.target_dictionary), 8)
    rounding = model.denoiser.output_projection.weight
    assert rounding.shape == (len(task.target_dictionary), 8)
    assert rounding is not model.denoiser.embed_tokens.weight


@pytest.mark.parametrize("bert", [False, True])
def test_shared_tables_stay_shared(build, joined_task, bert):
    tied = build(share_decoder_input_output_embed=True, apply_bert_init=bert)
    assert tied.denoiser.output_projection.weight is tied.denoiser.embed_tokens.weight
    assert tied.encoder.embed_tokens.weight is not tied.denoiser.embed_tokens.weight
    model = build(joined_task, share_all_embeddings=True, apply_bert_init=bert)
    table = model.denoiser.embed_tokens.weight
    assert model.encoder.embed_tokens.weight is table
    assert model.denoiser.output_projection.weight is table
    for built in (tied, model):
        for part in (built.encoder, built.denoiser):
            assert not part.embed_tokens.weight[part.pad].any()
            assert part.embed_tokens.weight.any(1).sum() == len(part.embed_tokens.weight) - 1


def test_sharing_needs_one_dictionary(build):
    with pytest.raises(UserError, match="19 types.*24 types.*--joined-dictionary"):
        build(share_all_embeddings=True)


def test_projections(build):
    separate, shared = build(), build(share_project_in_dim=True)
    assert separate.encoder.project_in_dim is not separate.denoiser.project_in_dim
    assert shared.encoder.project_in_dim is shared.denoiser.project_in_dim
    assert shared.denoiser.project_out_dim.weight.shape == (8, 16)
    equal = build(latent_dim=16)
    assert not [name for name, _ in equal.named_parameters() if "project_" in name]


def test_bert_initialisation(build):
    """The denoiser, the target embeddings and the lengths, but not the encoder."""
    model = build(apply_bert_init=True, latent_dim=64, model_dim=128)
    parts = {
        "denoiser": [p for p in model.denoiser.parameters() if p.dim() == 2],
        "lengths": [model.length_predictor.embed_length.weight],
    }
    for weights in parts.values():
        for weight in weights:
            spread = weight[weight != 0].std().item()
            assert spread == pytest.approx(0.02, rel=6 / math.sqrt(weight.numel()))
    for p in model.encoder.parameters():
        assert p.dim() != 2 or p.std().item() > 0.04


def write_vectors(path, vectors, header=True):
    lines = [f"{len(vectors)} {len(next(iter(vectors.values())))}"] * header
    lines += [f"{word} {' '.join(map(repr, values))}" for word, values in vectors.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def vectors_of(dictionary, dim=8):
    """Vectors for all words but the last."""
    words = dictionary.symbols[dictionary.nspecial : -1]
    return {word: [float(i), *(0.5 * i for _ in range(dim - 1))] for i, word in enumerate(words, 1)}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("bert", [True, False])
def test_pretrained_embeddings_are_those_of_the_file(build, task, tmp_path, header, bert):
    paths = {}
    for side, name in (("source", "encoder"), ("target", "decoder")):
        vectors = vectors_of(getattr(task, f"{side}_dictionary"))
        paths[f"{name}_embed_path"] = write_vectors(tmp_path / side, vectors, header)
    model = build(apply_bert_init=bert, **paths)
    for side, part in (("source", model.encoder), ("target", model.denoiser)):
        dictionary = getattr(task, f"{side}_dictionary")
        table = part.embed_tokens.weight.detach()
        for word, vector in vectors_of(dictionary).items():
            assert table[dictionary.index(word)].tolist() == vector
        assert table[-1].any() and table[-1].abs().max() < 5  # without a vector: as without a file
        assert not table[part.pad].any()


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_embeddings_do_not_move(build, task, sentences, tmp_path, frozen):
    paths = {
        f"{name}_embed_path": write_vectors(
            tmp_path / name, vectors_of(getattr(task, f"{side}_dictionary"))
        )
        for side, name in (("source", "encoder"), ("target", "decoder"))
    }
    model = build(freeze_embeddings=frozen, share_decoder_input_output_embed=True, **paths)
    tables = [model.encoder.embed_tokens.weight, model.denoiser.embed_tokens.weight]
    before = [table.detach().clone() for table in tables]
    other = model.denoiser.layers[0].fc1.weight.detach().clone()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    output = model.train()(sentences([5, 2]), sentences([3, 6], "target"))
    loss = (output.z_0_hat - output.z_0).square().mean()
    (loss + model.denoiser.output_projection(output.z_0_hat).logsumexp(-1).mean()).backward()
    optimizer.step()
    assert [torch.equal(old, new) for old, new in zip(before, tables)] == [frozen, frozen]
    assert not torch.equal(other, model.denoiser.layers[0].fc1.weight)


def test_random_embeddings_are_never_frozen(build, task, tmp_path):
    path = write_vectors(tmp_path / "v", vectors_of(task.target_dictionary))
    model = build(freeze_embeddings=True, decoder_embed_path=path)
    assert not model.denoiser.embed_tokens.weight.requires_grad
    assert model.encoder.embed_tokens.weight.requires_grad
    assert model.denoiser.output_projection.weight.requires_grad


def test_vectors_of_another_dimension(build, task, tmp_path):
    path = write_vectors(tmp_path / "vectors", vectors_of(task.target_dictionary, dim=5))
    with pytest.raises(UserError, match=r"vectors: .*5.*--latent-dim is 8"):
        build(decoder_embed_path=path)


@pytest.mark.parametrize("text", ["", "1 8\n", "t0 1 2 x 4 5 6 7 8\n"])
def test_a_file_that_holds_no_vectors(build, tmp_path, text):
    path = tmp_path / "vectors"
    path.write_text(text)
    with pytest.raises(UserError, match="vectors"):
        build(decoder_embed_path=str(path))


def test_one_table_takes_one_file(build, joined_task, tmp_path):
    path = write_vectors(tmp_path / "v", vectors_of(joined_task.source_dictionary))
    model = build(joined_task, share_all_embeddings=True, encoder_embed_path=path)
    assert model.denoiser.embed_tokens.weight[4].tolist() == [1.0] + [0.5] * 7
    with pytest.raises(UserError, match="--decoder-embed-path"):
        build(joined_task, share_all_embeddings=True, decoder_embed_path=path)


def test_random_embeddings_have_unit_length_on_average(build, task):
    """Deviation D^(-1/2), so that z_0, which is scaled by sqrt(D), has unit variance."""
    cfg = build().cfg
    cfg.latent_dim = 4096
    table = build_embedding(cfg, task.target_dictionary, None).weight
    lengths = table[torch.arange(len(table)) != 1].norm(dim=1)
    assert (lengths - 1).abs().max() < 5 / math.sqrt(2 * 4096)


# decoding


def test_predict_starts_without_a_condition(build):
    model = build(self_cond=True)
    memory = Memory(torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    z_t, mask = torch.randn(2, 4, 8), torch.ones(2, 4).bool()
    layout, context = Layout.dense(mask), model.context(memory)
    for previous in (None, torch.randn(2, 4, 8)):
        condition = torch.zeros(2, 4, 8) if previous is None else previous
        expected = model.denoiser(z_t, torch.tensor([7, 7]), mask, memory, condition)
        last = None if previous is None else previous.flatten(0, 1)
        predicted = model.predict(z_t.flatten(0, 1), 7, layout, context, last)
        torch.testing.assert_close(predicted.view(2, 4, 8), expected)


def test_half_precision_predicts_in_float32(build):
    model = build(self_cond=True).bfloat16()
    memory = Memory(torch.randn(2, 5, 16).bfloat16(), torch.ones(2, 5).bool())
    layout = Layout.dense(torch.ones(2, 4).bool())
    predicted = model.predict(torch.randn(8, 8), 7, layout, model.context(memory), None)
    assert predicted.dtype == model.clamp(predicted).dtype == torch.float32
    assert model.round(predicted)[1].dtype == torch.float32


def test_a_precision_of_its_own_for_decoding(build):
    """It is that of the whole model in this precision, and follows the weights."""
    model = build(self_cond=True).eval()
    memory = Memory(torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    layout, z_t = Layout.dense(torch.ones(2, 4).bool()), torch.randn(8, 8)

    def predict(dtype=torch.bfloat16):
        return model.predict(z_t, 7, layout, model.context(memory, dtype), None)

    half = copy.deepcopy(model).bfloat16()
    expected = half.predict(z_t, 7, layout, half.context(memory.to(torch.bfloat16)), None)
    assert torch.equal(predict(), expected) and not torch.equal(predict(None), expected)
    tokens = model.likeliest(None, expected, model.context(memory, torch.bfloat16))
    assert torch.equal(tokens, half.denoiser.likeliest(expected))
    with torch.no_grad():
        model.train().denoiser.project_in_dim.weight.data.mul_(3)
    assert not torch.equal(model.eval() and predict(), expected)
    model.load_state_dict(half.float().state_dict())
    torch.testing.assert_close(predict(), expected)


def test_clamp_embeds_the_likeliest_tokens(build):
    """With tied embeddings of equal length, clamping an embedding gives it back."""
    model = build(
        share_decoder_input_output_embed=True, embed_norm=True, embed_norm_before_proj=True
    )
    with torch.no_grad():
        model.denoiser.embed_tokens.weight[4:] = model.denoiser.embed(torch.arange(4, 24))
    tokens = torch.tensor([[4, 9, 23], [7, 7, 11]])
    z_0 = model.denoiser.embed(tokens.flatten())
    torch.testing.assert_close(model.clamp(z_0 + 0.01 * torch.randn(6, 8)), z_0)


def test_decoding_process_is_that_of_training_but_for_the_factor(build):
    model = build(noise_schedule="linear", rescaling_factor=4.0)
    own = model.decoding_process(DecodingOptions(decoding_steps=5))
    assert own.noise_scale == 1 and model.process.noise_scale == 4
    assert own.timesteps.tolist() == [0, 12, 24, 37, 49]
    assert (own.alphas_cumprod == alphas_cumprod("linear", 50)[own.timesteps]).all()
    other = model.decoding_process(
        DecodingOptions(
            decoding_steps=50,
            decoding_noise_schedule="cosine",
            decoding_rescaling_factor=3.0,
            decoding_vp_rf=True,
        )
    )
    assert other.alphas_cumprod == pytest.approx(alphas_cumprod("cosine", 50, 3.0))
    with pytest.raises(UserError, match="--decoding-steps.*50"):
        model.decoding_process(DecodingOptions(decoding_steps=51))


def test_sizes_that_decoding_asks_for(build):
    model = build()
    assert (model.time_unit, model.noise_shape(7)) == (50, (7, 8))
    assert model.max_positions() == (40, 30)


@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast"])
def test_a_step_of_training_in_half_precision(how, build, sentences):
    """Losses stay near those of float32, with the noise and the self-conditioning the same."""
    source, target = sentences([5, 3, 7]), sentences([4, 6, 2], side="target")
    full = build(self_cond=True)(source, target)
    model = build(self_cond=True)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            half = model(source, target)
    else:
        half = model.to(getattr(torch, how))(source, target)
    assert half.z_0_hat.dtype != torch.float32
    difference = (half.z_0_hat.float() - full.z_0_hat).abs().max()
    assert 0 < difference < 0.1 * full.z_0_hat.abs().max()


def test_gradients_of_a_step_of_training_under_autocast(build, task, sentences):
    """The pass without gradients, of self-conditioning, takes none from the pass that follows."""
    model = build(self_cond=True, embed_norm=True, embed_norm_affine=True).train()
    calls = watch(model)
    target = sentences([4, 6, 2, 5] * 4, side="target")
    sample = {"net_input": {"src_tokens": sentences([5, 3, 7, 4] * 4)}, "target": target}
    criterion = DifformerLoss(DifformerLossConfig(label_smoothing=0.1), task)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = criterion(model, sample)
    loss.backward()
    assert [len(t) for _, t, *_ in calls][1:] == [16] and 0 < len(calls[0][1]) < 16
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        if name.startswith("denoiser.") and "proj" in name and not name.endswith("k_proj.bias"):
            assert weight.grad.any(), name
