"""What `difformer tune` starts from, resumes and writes."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import OPTIONS
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning import tune
from difformer_plugin.tuning.report import render
from difformer_plugin.tuning.space import SamplerChoice, Settings


def test_reference_has_as_many_candidates_whether_lengths_are_predicted_or_not():
    predicted, grown = (tune.reference_options({}, each) for each in (True, False))
    assert (predicted.length_beam_size, predicted.noise_beam_size) == (7, 3)
    assert (grown.length_beam_size, grown.noise_beam_size) == (1, 21)
    assert predicted.decoding_steps == 20 and predicted.bleu_mbr and not predicted.ppl_mbr
    assert not tune.reference_options({"ppl_mbr": True}, True).bleu_mbr
    assert not tune.reference_options({"rerank": "mbr=1,length=0.1"}, True).bleu_mbr


def test_precisions_that_pay_are_the_default(monkeypatch):
    denoiser = SimpleNamespace(output_projection=torch.nn.Linear(2, 2))
    monkeypatch.setattr(tune, "pays", lambda _, name: name in ("fp32", "int8"))
    assert tune.fast_precisions(denoiser) == ["fp32", "int8"]
    denoiser.output_projection = torch.nn.Linear(2, 2, device="meta")  # in place of a GPU
    assert tune.fast_precisions(denoiser) == ["fp32"]
    with pytest.raises(UserError, match="no such precision as int4"):
        tune.check_precisions(["fp32", "int4"])


def test_settings_file_has_the_sampler_and_its_settings_that_are_not_default():
    sampler = SamplerChoice(
        "confidence", (("decoding_remasking", True), ("decoding_temperature", 0.0))
    )
    settings = Settings(4, 0, 2, 1, 0, 1, "bf16", sampler)
    options = DecodingOptions(bleu_mbr=True, decoding_temperature=0.5)
    fixed = {name: getattr(options, name) for name in OPTIONS}
    assert tune.values_to_write(settings, fixed) == {
        "decoding_steps": 4,
        "decoding_early_stopping": 0,
        "length_beam_size": 2,
        "noise_beam_size": 1,
        "race_after": 0,
        "race_keep": 1,
        "decoding_precision": "bf16",
        "decoding_sampler": "confidence",
        "decoding_remasking": True,
        "bleu_mbr": True,
    }


def test_journal_resumes_only_the_same_work(tmp_path):
    header = {"format": tune.FORMAT, "--seed": 1, "data": "a"}
    with Journal(tmp_path / "journal") as journal:
        tune.begin_or_resume(journal, header)
        journal.append({"seconds": 1.0})
        tune.begin_or_resume(journal, header)
        assert list(journal.records()) == [{"seconds": 1.0}]
        with pytest.raises(UserError, match="another --seed, another data: give another --out"):
            tune.begin_or_resume(journal, {**header, "--seed": 2, "data": "b"})
        with pytest.raises(UserError, match=rf"\(format {tune.FORMAT}, not 99\)"):
            tune.begin_or_resume(journal, {**header, "format": 99})


@pytest.mark.parametrize("most", [1, 2, 3, 6, 9])
def test_evenly_spread_items_include_both_ends(most):
    items = list(range(7))
    found = tune.evenly_spread(items, most)
    assert len(found) == min(most, 7) and found == sorted(set(found)) and found[0] == 0
    assert most == 1 or found[-1] == 6


def test_table_marks_the_reference_and_the_chosen_settings():
    rows = [
        {"name": "slow", "bleu": 30.0, "loss": 0.0, "loss_interval": (0.0, 0.0)},
        {"name": "fast", "bleu": 29.9, "loss": 0.1, "loss_interval": (-0.1, 0.3)},
    ]
    for row, speed in zip(rows, (1.0, 4.0)):
        row.update(sentences_per_second=speed, ratio=speed)
    result = {"chosen": rows[1], "reference": rows[0], "front": rows, "sentences": 10}
    result |= {"machine": "a CPU", "signature": "tok:none"}
    args = Namespace(out="fast.toml", gen_subset="valid", batch_size=5, max_loss=0.05)
    lines = render(args, result).splitlines()
    assert lines[1].startswith("r slow") and lines[2].startswith("* fast")
    assert lines[2].endswith("4.0x") and "nothing faster" not in "".join(lines)
    alone = render(args, result | {"chosen": rows[0]})
    assert "nothing faster was found within 0.05: the least that faster settings lose is" in alone
    assert "is 0.10, at 4.0x; allow a greater --max-loss or more trials" in alone
    assert "nothing faster was found: allow" in render(
        args, result | {"chosen": rows[0], "front": rows[:1]}
    )
