"""What training of the insertion model shortens and masks."""

from types import SimpleNamespace

import pytest
import torch
from discrete_kinds import KINDS
from token_cases import BOS, EOS, SOURCES, TARGETS, UNK, batch_of

from difformer_plugin.errors import UserError
from difformer_plugin.families.insertion.objective import InsertionDiffusionLoss
from difformer_plugin.families.tokens.objective import (
    DiscreteDiffusionLoss,
    DiscreteDiffusionLossConfig,
)


def test_corruption_follows_the_process(few, build_discrete):
    """The expected numbers of absent tokens and of masks, given the times that were drawn."""
    model = build_discrete(few, objective="flexible", noise_schedule="log_linear").train()
    left = masks = expected_left = expected_masks = words = spread = 0
    with torch.no_grad():
        for seed in range(6):
            source = batch_of(64, 12, few.source_dictionary, seed)
            target = batch_of(64, 12, few.target_dictionary, 100 + seed)
            output = model(src_tokens=source, target=target)
            missing = output.gaps.missing.sum().item()
            assert output.num_tokens.tolist() == [12] * 64
            # Each sentence has one gap more than tokens that are left.
            assert len(output.gaps.missing) == 64 * 12 - missing + 64
            starts = output.gaps.t.unique_consecutive()
            absent, masked = starts, -(starts * starts.log())
            left, expected_left = left + 64 * 12 - missing, expected_left + 12 * (1 - absent).sum()
            masks, expected_masks = masks + len(output.x_0), expected_masks + 12 * masked.sum()
            words, spread = words + 64 * 12, spread + 12 * (absent * (1 - absent)).sum()
    assert abs(left - expected_left) < 4 * spread**0.5
    assert abs(masks - expected_masks) < 4 * expected_masks**0.5
    assert 0 < masks < left < words


def test_frames_stay_and_gaps_count_what_is_missing(build_discrete, sentences, read):
    model = build_discrete(**KINDS["flexible"]).train()
    target = sentences(TARGETS, "target")
    for _ in range(8):
        output, tokens = read(model, sentences(SOURCES), target)
        ends = (tokens == EOS).nonzero()[:, 0].tolist()
        pieces = [p.tolist() for p in tokens.tensor_split([e + 1 for e in ends])[:-1]]
        assert len(pieces) == len(TARGETS)
        gaps, masks = iter(output.gaps.missing.tolist()), iter(output.x_0.tolist())
        for piece, row in zip(pieces, target):
            assert piece[0] == BOS and min(piece[1:-1], default=UNK) >= UNK
            whole = row[1 : row.tolist().index(EOS)].tolist()
            # Its masks filled and its gaps counted, it is the whole target again.
            rebuilt, known = 0, []
            for token in piece[:-1]:
                if token != BOS:
                    known.append(next(masks) + UNK if token == model.vocabulary.mask else token)
                rebuilt += next(gaps)
            rest = iter(whole)
            assert all(token in rest for token in known)
            assert rebuilt + len(known) == len(whole)


@pytest.mark.parametrize("option", ["auxiliary_loss_factor", "length_loss_factor"])
def test_losses_that_a_growing_length_does_not_have(build_discrete, option):
    model = build_discrete(objective="flexible")
    task = SimpleNamespace(model_cfg=model.cfg, model_objective=model.objective)
    cfg = DiscreteDiffusionLossConfig(**{option: 0.5})
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')}: .* leave it out"):
        DiscreteDiffusionLoss.build_criterion(cfg, task)


def test_the_criterion_has_the_name_under_which_old_checkpoints_resume(build_discrete):
    model = build_discrete(objective="flexible")
    task = SimpleNamespace(model_cfg=model.cfg, model_objective=model.objective)
    criterion = DiscreteDiffusionLoss.build_criterion(DiscreteDiffusionLossConfig(), task)
    assert model.criterion == "discrete_diffusion_loss"
    assert type(criterion).__name__ == "DiscreteDiffusionLoss"
    assert isinstance(criterion, InsertionDiffusionLoss)
