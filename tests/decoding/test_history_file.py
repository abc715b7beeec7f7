"""The file of --history-file, without a model."""

import json
import math

import pytest
import torch

from difformer_plugin.decoding.history import HistoryFile
from difformer_plugin.errors import UserError


def hypothesis(*steps):
    return {
        "history": [
            {"tokens": torch.tensor(tokens), "positional_scores": torch.tensor(scores)}
            for tokens, scores in steps
        ]
    }


def test_batches_are_appended_and_only_the_best_candidate_counts(task, tmp_path):
    dictionary, path = task.target_dictionary, tmp_path / "history"
    file = HistoryFile(path, dictionary)
    assert not path.exists()
    best = hypothesis(([0, 4, 2], [-0.5, 0.0, -1.0]), ([0, 5, 2], [0.0, 0.0, math.log(0.25)]))
    other = hypothesis(([0, 9, 2], [0.0, 0.0, 0.0]))
    file.write({"id": torch.tensor([7, 3])}, [[best, other], [other]])
    file.write({"id": torch.tensor([1])}, [[other, best]])
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(line["id"], line["step"]) for line in found] == [(7, 0), (7, 1), (3, 0), (1, 0)]
    assert found[1]["tokens"] == ["<s>", dictionary[5], "</s>"]
    assert found[0]["probabilities"] == pytest.approx([math.exp(-0.5), 1, math.exp(-1)], abs=1e-5)
    assert found[1]["probabilities"] == [1, 1, 0.25]


def test_values_that_are_no_numbers_become_null(task, tmp_path):
    best = hypothesis(([0, 4, 2], [0.0, math.nan, math.inf]))
    HistoryFile(tmp_path / "history", task.target_dictionary).write(
        {"id": torch.tensor([0])}, [[best]]
    )
    text = (tmp_path / "history").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["probabilities"] == [1, None, None]


def test_a_file_is_never_written_over(task, tmp_path):
    path = tmp_path / "history"
    first = HistoryFile(path, task.target_dictionary)
    second = HistoryFile(path, task.target_dictionary)  # of another shard, opened at the same time
    sentences = [[hypothesis(([0, 4, 2], [0.0, 0.0, 0.0]))]]
    first.write({"id": torch.tensor([0])}, sentences)
    before = path.read_bytes()
    with pytest.raises(UserError, match="already exists.*shard"):
        second.write({"id": torch.tensor([1])}, sentences)
    with pytest.raises(UserError, match="already exists"):
        HistoryFile(path, task.target_dictionary)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_refused_at_once(task, tmp_path):
    with pytest.raises(UserError, match="--history-file .*none/history: no such folder; create"):
        HistoryFile(str(tmp_path / "none" / "history"), task.target_dictionary)
    (tmp_path / "now").mkdir()
    file = HistoryFile(str(tmp_path / "now" / "history"), task.target_dictionary)
    (tmp_path / "now").rmdir()
    with pytest.raises(UserError, match="--history-file .* could not be written .No such file"):
        file.write({"id": torch.tensor([0])}, [[hypothesis(([0, 4, 2], [0.0, 0.0, 0.0]))]])


def test_sentences_without_numbers(task, tmp_path):
    file = HistoryFile(tmp_path / "history", task.target_dictionary)
    with pytest.raises(UserError, match="use fairseq-generate"):
        file.write({}, [])
