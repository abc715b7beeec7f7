"""Commands side by side: what they are given, and the arithmetic of their times."""

import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, indexed_dataset
from fairseq.data.data_utils import load_indexed_dataset

from difformer_plugin.bench import against
from difformer_plugin.bench.against import Run
from difformer_plugin.bench.decode_rows import Setting
from difformer_plugin.errors import UserError

# Prints as fairseq-generate does: the first token of each sentence, and its other arguments.
STAND_IN = """
import array, os, sys
data, others = sys.argv[1], sys.argv[2:]
tokens = array.array("H", open(os.path.join(data, "test.de-en.de.bin"), "rb").read())
for i, word in enumerate(tokens[::2]):
    print(f"H-{i}\\t-0.5\\tw{word} {' '.join(others)}")
assert len(os.sched_getaffinity(0)) == 1 and os.environ["OMP_NUM_THREADS"] == "1"
"""


@pytest.fixture
def data(tmp_path):
    """A data-bin of 40 sentences, each of one word of its own."""
    folder = tmp_path / "data-bin"
    folder.mkdir()
    dictionary = Dictionary()
    words = [dictionary.add_symbol(f"w{i}") for i in range(40)]
    for language in ("de", "en"):
        dictionary.save(str(folder / f"dict.{language}.txt"))
        stem = folder / f"valid.de-en.{language}"
        builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
        for word in words:
            builder.add_item(torch.tensor([word, dictionary.eos()]))
        builder.finalize(f"{stem}.idx")
    return folder


def arguments(data, **options):
    given = {"sentences": 24, "subset": "valid", "seed": 1, "repetitions": 1, "settings": None}
    return Namespace(data=str(data), path="model.pt", cpu=True, **{**given, **options})


def test_time_of_a_sentence_is_the_difference_over_the_further_ones():
    translations = {0: "a", 1: "b"}
    runs = {
        "ours": [(Run(7, 9, {}), Run(11, 14, translations))] * 2,
        "other": [
            (Run(10, 11, {}), Run(30, 33, {0: "a", 1: "c"})),
            (Run(10, 11, {}), Run(34, 33, {})),
        ],
    }
    ours, other = (against.figures(name, runs, (5, 25)) for name in runs)
    assert (ours["cpu_seconds"], ours["wall_seconds"], ours["ratio"]) == (0.2, 0.25, 1)
    assert ours["start_seconds"] == 7 - 5 * 0.2 and ours["equal"] == 2
    assert other["cpu_seconds"] == pytest.approx(1.1) and other["equal"] == 1
    assert other["ratio"] == pytest.approx((5 + 6) / 2)


def test_a_part_of_a_split_becomes_a_data_bin(data, tmp_path):
    numbers = np.array([7, 3, 31])
    part = against.write_part(arguments(data), numbers, tmp_path / "part")
    assert (part / "dict.en.txt").read_bytes() == (data / "dict.en.txt").read_bytes()
    for language in ("de", "en"):
        loaded = load_indexed_dataset(str(part / f"test.de-en.{language}"))
        whole = load_indexed_dataset(str(data / f"valid.de-en.{language}"))
        assert [loaded[i].tolist() for i in range(len(loaded))] == [
            whole[int(n)].tolist() for n in numbers
        ]


def test_commands_get_the_setting_and_are_compared(data, tmp_path, monkeypatch):
    script = tmp_path / "other.py"
    script.write_text(STAND_IN)
    command = f"{sys.executable} {script} {{data}}"
    monkeypatch.setattr(against, "GENERATE", command)
    monkeypatch.setattr(against, "SETTING", "")
    monkeypatch.setattr(against, "own_commands", lambda args, setting: {"ours": command})
    args = arguments(data, against=[f"other={command} {{steps}} {{lengths}}x{{noises}} {{seed}}"])
    result = against.measure(args, Setting(5, (7, 3), 2), {0}, iter)
    ours, other = result["rows"]
    assert result["sentences"] == 18 and (ours["equal"], other["equal"]) == (24, 0)
    for row in (ours, other):
        (((few, _), (more, _)),) = row["runs"]  # CPU and wall times
        assert row["cpu_seconds"] == pytest.approx((more - few) / 18)


def test_own_commands_are_those_of_the_setting():
    args = arguments("data-bin", settings="fast.toml")
    one = against.own_commands(args, Setting(20, (1, 1), 4))
    several = against.own_commands(args, Setting(20, (7, 3), 4))
    words = against.fill(several["ours"], dict(zip(against.FIELDS, ("d", 4, 20, 7, 3, 1))))
    assert words[:4] == [sys.executable, "-m", "fairseq_cli.generate", "d"]
    for option, value in {
        "--decoding-steps": "20",
        "--length-beam-size": "7",
        "--noise-beam-size": "3",
        "--batch-size": "4",
        "--path": "model.pt",
    }.items():
        assert words[words.index(option) + 1] == value
    assert "--bleu-mbr" in words and "--bleu-mbr" not in one["ours"]
    assert "--decoding-settings fast.toml" in one["tuned"] and "--cpu" in words


@pytest.mark.parametrize(
    "texts, said",
    [
        (["fairseq-generate {data}"], "give NAME=COMMAND"),
        (["a="], "give NAME=COMMAND"),
        (["a=x {data}", "a=y {data}"], "there is a row a already"),
        (["ours=x {data}"], "there is a row ours already"),
        (["a=x {data} {beam}"], "placeholders {data}.*beam"),
        (["a=x {data} {"], "placeholders {data}"),
        (["a=x 'y {data}"], "placeholders {data}"),
        (["a=x data-bin"], "must read the data-bin {data}"),
    ],
)
def test_commands_that_make_no_sense_are_refused(texts, said):
    with pytest.raises(UserError, match=said):
        against.parse_commands(texts)


def test_failures_name_the_command_and_its_last_line():
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(UserError, match=r"other ended with status 1: no such model \(.*sys.exit"):
        against.execute("other", command, {0})
    with pytest.raises(UserError, match="other: /no/such/program: No such file"):
        against.execute("other", ["/no/such/program"], {0})


def test_a_split_that_is_missing_is_one_line(data):
    args = arguments(data, subset="none", against=[])
    with pytest.raises(UserError, match="data-bin.*none"):
        against.measure(args, Setting(5, (1, 1), 2), {0}, iter)


def test_too_few_sentences_for_two_sizes(data):
    with pytest.raises(UserError, match="--sentences 7: .* batches of 4 needs at least 8"):
        against.measure(arguments(data, sentences=7, against=[]), Setting(5, (1, 1), 4), {0}, iter)
