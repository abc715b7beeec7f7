"""`difformer distill --self` with a tiny model and teacher, as a user runs it."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import train_teacher
from distillation import contents, failures, run_with_kills, side
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from harness import SENTENCES, TASK, error_line, run, succeed
from sacrebleu import sentence_bleu

import difformer_plugin
from difformer_plugin.cli.main import main
from difformer_plugin.data.tokenisation import remove_bpe
from difformer_plugin.distillation.failures import failure

WEIGHT = 2.0  # of BLEU
DECODING = ["--decoding-steps", 3, "--length-beam-size", 3, "--noise-beam-size", 2]
TEST = ["--split", "test", "--batch-size", 4]
BLEU = r"mean sentence BLEU ([\d.]+) before, ([\d.]+) after"
LOG_PROB = r"log-probability per token ([-\d.]+) before, ([-\d.]+) after"


@pytest.fixture(scope="module")
def judge(corpus, tmp_path_factory):
    """A teacher that has learnt enough for its scores to differ."""
    drill = ["--lr", 2e-2, "--max-update", 60, "--disable-validation"]
    return train_teacher(corpus.joined, tmp_path_factory.mktemp("judge"), *drill)


@pytest.fixture(scope="module")
def present(corpus, model, tmp_path_factory):
    """Targets that the model has drawn with another seed; without the lines where it failed."""
    folder = tmp_path_factory.mktemp("present")
    command = ["distill", corpus.joined, "--teacher", model, "--out", folder / "distilled"]
    succeed(folder, "difformer", *command, "--split", "test", "--on-failure", "drop")
    return folder / "distilled"


@pytest.fixture(scope="module")
def command(corpus, model, judge, present):
    """The command without --out."""
    models = ["--self", model, "--teacher", judge]
    weight = ["--bleu-weight", WEIGHT]
    return ["distill", present, "--raw", corpus.joined, *models, *DECODING, *TEST, *weight]


@pytest.fixture(scope="module")
def improved(command, tmp_path_factory):
    """The result of one run, and what it printed."""
    folder = tmp_path_factory.mktemp("improved")
    outcome = succeed(folder, "difformer", *command, "--out", folder / "out")
    return folder / "out", outcome.out


def mean_log_prob(teacher, source, target):
    """The teacher's mean log-probability per token of one target: tokens with EOS, in lists."""
    previous = torch.tensor([[2, *target[:-1]]])
    with torch.no_grad():
        output = teacher(torch.tensor([source]), torch.tensor([len(source)]), previous)
        log_probs = torch.log_softmax(output[0][0].float(), -1)
    return log_probs[range(len(target)), target].mean().item()


def test_the_choice_is_that_of_a_search_over_all_candidates(
    corpus, model, judge, present, improved, tmp_path
):
    """Candidates are those of fairseq-generate; each is scored alone."""
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--path", model, "--nbest", 6, *DECODING),
        *("--seed", 1, "--batch-size", 50),
    )
    candidates = {}
    for sentence, text in outcome.lines("H"):
        candidates.setdefault(sentence, []).append(text)
    difformer_plugin.register()
    (teacher,), _ = checkpoint_utils.load_model_ensemble([str(judge)])
    teacher.eval()
    out, printed = improved
    dictionary = Dictionary.load(str(out / "dict.en.txt"))
    numbers = np.load(present / "distilled.sentences.npy").tolist()
    assert len(numbers) < SENTENCES  # so that a line's number is not its place
    raw, sources = (side(corpus.joined, language, "test") for language in ("en", "de"))
    old, new = (side(folder, "en", "test") for folder in (present, out))
    changed, sums = 0, np.zeros((2, 2))
    for place, sentence in enumerate(numbers):
        assert len(candidates[sentence]) == 6
        drawn = [dictionary.encode_line(t, add_if_not_exist=False) for t in candidates[sentence]]
        drawn = [tokens.tolist() for tokens in drawn]
        source, target = sources[sentence], raw[sentence]
        usable = [t for t in drawn if failure(t[:-1], source[:-1], target[:-1]) is None]

        def scores(tokens, source=source, target=target):
            reference = remove_bpe(dictionary.string(target, escape_unk=True))
            words = remove_bpe(dictionary.string(tokens))
            bleu = sentence_bleu(words, [reference], tokenize="none").score
            return np.array([bleu, mean_log_prob(teacher, source, tokens)])

        def total(tokens):
            bleu, log_prob = scores(tokens)
            return log_prob + WEIGHT * bleu / 100

        best = max(usable, key=total, default=old[place])
        if total(best) <= total(old[place]) + 1e-5:
            assert new[place] == old[place]
        else:
            assert total(new[place]) == pytest.approx(total(best), abs=1e-5)
            assert new[place] in usable
        changed += new[place] != old[place]
        sums += scores(old[place]), scores(new[place])
    assert 2 <= changed <= len(numbers) - 2  # what is drawn depends on the version of torch
    assert f"{changed} targets replaced; {6 * len(numbers)} candidates" in printed
    means = sums / len(numbers)
    bleu, log_prob = (
        [float(n) for n in re.search(form, printed).groups()] for form in (BLEU, LOG_PROB)
    )
    assert bleu == pytest.approx(means[:, 0], abs=0.0051)
    assert log_prob == pytest.approx(means[:, 1], abs=0.00051)


def test_all_but_targets_stays(corpus, present, improved):
    out, _ = improved
    assert side(out, "de", "test") == side(present, "de", "test")
    for name in ("distilled.sentences.npy", "dict.en.txt", "train.de-en.en.bin"):
        assert (out / name).read_bytes() == (present / name).read_bytes()
    setting = json.loads((out / "distilled.json").read_text())["setting"]
    assert setting["--bleu-weight"] == WEIGHT and setting["--length-beam-size"] == 3
    assert not failures(out)


@pytest.mark.slow
def test_mixed_shards_equal_a_single_run(command, present, improved, tmp_path):
    """With --mix, present pairs follow the new ones; --mix 1 appends all."""
    options, folders = ["--mix", 0.5], []
    for i in range(2):
        folders.append(tmp_path / str(i))
        shard = ["--shard", f"{i}/2", "--out", folders[-1]]
        succeed(tmp_path, "difformer", *command, *options, *shard)
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    succeed(tmp_path, "difformer", *command, *options, "--out", whole)
    succeed(tmp_path, "difformer", "distill", "--merge", *folders, "--out", merged)
    assert contents(merged) == contents(whole)
    new, old = (side(folder, "en", "test") for folder in (improved[0], present))
    half = side(whole, "en", "test")
    assert half[: len(new)] == new and len(new) < len(half) < 2 * len(new)
    printed = succeed(tmp_path, "difformer", *command, "--mix", 1, "--out", tmp_path / "all").out
    assert side(tmp_path / "all", "en", "test") == [*new, *old]
    assert f"{2 * len(new)} pairs written, {len(new)} of them present ones" in printed
    again = [tmp_path / "all" if part == present else part for part in command]
    line = error_line(run(tmp_path, "difformer", *again, "--out", tmp_path / "again"))
    assert "holds pairs twice" in line


@pytest.mark.slow
def test_kills_do_not_change_the_result(command, present, tmp_path):
    """With a batch for each line and many steps, so that no run has finished when it is killed."""
    slowly, kills = [*command, "--batch-size", 1, "--decoding-steps", 20], 2
    succeed(tmp_path, "difformer", *slowly, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    decoded = run_with_kills(tmp_path, ["difformer", *slowly, "--out", out], out, kills)
    assert contents(out) == contents(tmp_path / "whole")
    lines = len(side(present, "en", "test"))
    assert lines <= decoded <= lines + kills


def test_bad_input_is_refused(corpus, model, judge, teacher, command, improved, tmp_path):
    def refuse(*options, out=tmp_path / "out", **replaced):
        """Run the command with other values of some options."""
        parts = list(command)
        for option, value in replaced.items():
            parts[parts.index(f"--{option}") + 1] = value
        line = error_line(run(tmp_path, "difformer", *parts, *options, "--out", out))
        assert not (tmp_path / "out").exists()
        return line

    assert "not a diffusion model" in refuse(self=judge)
    assert "give an autoregressive model" in refuse(teacher=model)
    assert "names 2 models" in refuse(teacher=f"{judge}:{judge}")
    assert "no such checkpoint" in refuse(self=tmp_path / "nowhere.pt")
    assert "do not have the same sources" in refuse(raw=corpus.other)
    assert "--length-beam-size must be at least 1" in refuse("--length-beam-size", 0)
    assert "--bleu-weight 2.0 instead of 1.0" in refuse("--bleu-weight", 1, out=improved[0])
    assert "another teacher" in refuse(out=improved[0], teacher=teacher)
    settings = tmp_path / "settings.toml"
    settings.write_text("decoding_stepz = 3\n")
    assert "no such option" in refuse("--decoding-settings", settings)


def test_settings_of_tune_are_read(command, improved, tmp_path):
    """An option that both set to different values is an error; reranking is the teacher's."""
    settings = tmp_path / "settings.toml"
    options = ["--decoding-settings", settings, "--out", tmp_path / "out"]
    settings.write_text("decoding_steps = 9\n")
    line = error_line(run(tmp_path, "difformer", *command, *options))
    assert "both --decoding-steps 3 and --decoding-settings" in line
    settings.write_text("decoding_steps = 3\nppl_mbr = true\n")
    succeed(tmp_path, "difformer", *command, *options)
    assert contents(tmp_path / "out") == contents(improved[0])


@pytest.mark.parametrize(
    "options, said",
    [
        (["--raw", "raw"], "--raw needs --self"),
        (["--mix", "1"], "--mix needs --self"),
        (["--self", "m.pt"], "--self needs --raw"),
        *(
            (["--self", "m.pt", "--raw", "raw", *more], said)
            for more, said in (
                (["--mix", "1.5"], "--mix must be"),
                (["--mix", "nan"], "--mix must be"),
                (["--bleu-weight", "-1"], "--bleu-weight must be"),
                (["--bleu-weight", "inf"], "--bleu-weight must be"),
                (["--beam", "4"], "--beam does not go with --self"),
                (["--choose", "best-bleu"], "--choose does not go with --self"),
                (["--add-raw", "1"], "--add-raw does not go with --self"),
                (["--on-failure", "drop"], "--on-failure does not go with --self"),
                (["--bf16"], "--fp16 or --bf16 does not go with --self"),
                (["--merge"], "--self does not go with --merge"),
            )
        ),
    ],
)
def test_impossible_options_are_refused(options, said, tmp_path, capsys):
    """Before anything is read."""
    command = ["distill", "data", "--teacher", "teacher.pt", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1 and not captured.out
