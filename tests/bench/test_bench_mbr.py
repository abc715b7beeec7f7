import numpy as np
import pytest
import torch

from difformer_plugin.bench import mbr, workload


def test_both_implementations_are_timed_and_agree():
    rng = np.random.default_rng(0)
    sentence = [f"w{i}" for i in range(12)]
    candidates = [workload.random_edits(sentence, sentence, 4, rng, 0.3) for _ in range(3)]
    found = mbr.measure(candidates, 2, torch.device("cpu"))
    loop, tensors = found["rows"]
    assert (loop["name"], tensors["name"]) == (mbr.LOOP, mbr.TENSORS) and loop["ratio"] == 1
    ratios = [sum(a) / sum(b) for a, b in zip(loop["seconds"], tensors["seconds"])]
    assert tensors["ratio"] == pytest.approx(np.median(ratios))
    assert found["sentences"] == 3 and found["greatest_difference"] < 1e-4
