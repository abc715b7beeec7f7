"""`difformer distill` with tiny teachers, as a user runs it."""

import json
import re
import shutil
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from conftest import train_teacher
from distillation import BATCHES, SEARCH, contents, distil_with, failures, run_with_kills, side
from fairseq.data import Dictionary
from harness import OPTIMISER, SENTENCES, TASK, binarise, error_line, lines, run, succeed
from sacrebleu import sentence_bleu

import difformer_plugin
from difformer_plugin.data.tokenisation import remove_bpe
from difformer_plugin.distillation.distilled_data_bin import finished_work
from difformer_plugin.distillation.failures import failure
from difformer_plugin.errors import UserError

TEST = ["--split", "test"]
TRAINING = 200  # sentences


@pytest.fixture(scope="module")
def drilled_teacher(corpus, tmp_path_factory):
    """A teacher that has learnt enough for outputs to differ; some of them are failures.

    After the ten updates of the fixture `teacher`, all outputs are the same.
    """
    drill = ["--lr", 2e-2, "--max-update", 200, "--disable-validation"]
    return train_teacher(corpus.joined, tmp_path_factory.mktemp("drilled"), *drill)


@pytest.fixture(scope="module")
def distil(corpus, drilled_teacher):
    """`difformer distill` of the training set with this teacher."""
    return partial(distil_with, teacher=drilled_teacher, data=corpus.joined)


@pytest.fixture(scope="module")
def distilled(distil, tmp_path_factory):
    """The training set, distilled in one run."""
    return distil(tmp_path_factory.mktemp("distilled"))


def test_outputs_are_those_of_fairseq_generate(corpus, drilled_teacher, distilled, tmp_path):
    """Sentence by sentence, in fairseq's own batches; failures are in the report."""
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, "--path", drilled_teacher, "--gen-subset", "train"),
        *("--beam", 5, *SEARCH, "--required-batch-size-multiple", 1, "--cpu"),
        *("--user-dir", TASK[3], "--batch-size", 50),
    )
    expected = outcome.translations()
    assert len(expected) == TRAINING and len(set(expected.values())) > TRAINING / 2
    out, printed = distilled
    dictionary = Dictionary.load(str(out / "dict.en.txt"))
    failed, sources = failures(out), lines(corpus.text / "train.de")
    assert 0 < len(failed) < TRAINING / 2
    for i, tokens in enumerate(side(out, "en")):
        if i not in failed:
            assert dictionary.string(tokens) == expected[i]
            continue
        assert failed[i][1:] == ["raw", remove_bpe(sources[i]), remove_bpe(expected[i])]
        assert tokens == side(corpus.joined, "en")[i]
    # The printed BLEU is that of all first hypotheses against the raw targets.
    from sacrebleu.metrics import BLEU

    outputs = [remove_bpe(expected[i]) for i in range(TRAINING)]
    references = [remove_bpe(line) for line in lines(corpus.text / "train.en")]
    score = BLEU(tokenize="none", force=True).corpus_score(outputs, [references]).score
    assert float(re.search(r"BLEU +([\d.]+)", printed)[1]) == pytest.approx(score, abs=0.005)
    assert f"{TRAINING} translated" in printed and "target tokens/s" in printed


def test_everything_but_the_targets_equals_the_raw_data_bin(corpus, distilled):
    out, _ = distilled
    assert all(tokens[-1] == 2 and 2 not in tokens[:-1] for tokens in side(out, "en"))
    for path in corpus.joined.iterdir():
        if not path.name.startswith("train.de-en.en."):
            assert (out / path.name).read_bytes() == path.read_bytes()
    assert side(out, "en") != side(corpus.joined, "en")
    assert np.load(out / "distilled.sentences.npy").tolist() == list(range(TRAINING))


def test_fairseq_trains_on_it(distilled, tmp_path):
    train_teacher(distilled[0], tmp_path, "--max-update", 2)


def test_finished_work_is_not_repeated(distilled, distil, tmp_path):
    shutil.copytree(distilled[0], tmp_path / "distilled")
    before = contents(tmp_path / "distilled")
    _, printed = distil(tmp_path)
    assert "nothing to do" in printed and "BLEU" in printed
    manifest = tmp_path / "distilled" / "distilled.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('  "--choose": "likeliest",\n', ""))  # from before --choose
    assert manifest.read_text() != text
    assert "nothing to do" in distil(tmp_path)[1]
    manifest.write_text(text)
    assert contents(tmp_path / "distilled") == before


@pytest.mark.parametrize(
    "name, size", [("train.de-en.en.bin", None), ("dict.de.txt", None), ("train.de-en.de.idx", 90)]
)
def test_what_was_damaged_since_is_not_called_finished(distilled, tmp_path, name, size):
    out = shutil.copytree(distilled[0], tmp_path / "distilled")
    manifest = json.loads((out / "distilled.json").read_text())
    assert finished_work(out, manifest) == manifest
    whole = (out / name).read_bytes()
    (out / name).unlink()
    if size:
        (out / name).write_bytes(whole[:size])
    said = f"{name} differs|{name}, .* differs" if size else f"{name} is missing"
    with pytest.raises(UserError, match=f"is not as it was written, .*({said}): remove it"):
        finished_work(out, manifest)


def test_merged_shards_equal_a_single_run(distil, tmp_path):
    options, folders = [*TEST, "--on-failure", "drop", "--add-raw", 0.4], []
    for i in range(3):
        (tmp_path / str(i)).mkdir()
        folders.append(distil(tmp_path / str(i), "--shard", f"{i}/3", *options)[0])
    counts = [len(side(folder, "en", "test")) for folder in folders]
    whole, _ = distil(tmp_path, *options)
    merged = tmp_path / "merged"
    command = ["distill", "--merge", folders[2], folders[0], folders[1], "--out", merged]
    printed = succeed(tmp_path, "difformer", *command).out
    assert f"{SENTENCES} translated" in printed
    assert contents(merged) == contents(whole)
    assert len(side(merged, "en", "test")) == sum(counts) and all(counts)
    # an incomplete copy of a shard
    targets = folders[0] / "test.de-en.en.bin"
    targets.write_bytes(targets.read_bytes()[:-2])
    again = [*command[:-1], tmp_path / "again"]
    assert "0/distilled is not as it was" in error_line(run(tmp_path, "difformer", *again))
    targets.unlink()
    assert "0/distilled is not as it was" in error_line(run(tmp_path, "difformer", *again))
    assert not (tmp_path / "again").exists()


@pytest.fixture(scope="module")
def two_splits(corpus, tmp_path_factory):
    """A data-bin whose `test` is there as `train1`, too."""
    data = tmp_path_factory.mktemp("two") / "data"
    shutil.copytree(corpus.joined, data)
    for path in corpus.joined.glob("test.*"):
        shutil.copy(path, data / path.name.replace("test", "train1"))
    return data


def test_splits_that_stay_raw_are_named(distil, distilled, two_splits, tmp_path):
    out, printed = distil(tmp_path, data=two_splits)
    assert "left raw  train1" in printed and "--all-train-splits" in printed
    assert side(out, "en") == side(distilled[0], "en")
    assert side(out, "en", "train1") == side(two_splits, "en", "train1")
    assert "left raw" not in distilled[1]


@pytest.mark.slow
def test_all_train_splits(distil, distilled, two_splits, tmp_path):
    """Each as it is distilled alone; numbers run on; merged shards equal a single run."""
    (tmp_path / "alone").mkdir()
    options = ["--all-train-splits", "--on-failure", "drop", "--add-raw", 0.3]
    whole, printed = distil(tmp_path, *options, data=two_splits)
    assert f"{TRAINING + SENTENCES} translated" in printed and "left raw" not in printed
    numbers = np.load(whole / "distilled.sentences.npy")
    raw = [*side(two_splits, "de"), *side(two_splits, "de", "train1")]
    sources = {split: side(whole, "de", split) for split in ("train", "train1")}
    for split, own in (("train", numbers < TRAINING), ("train1", numbers >= TRAINING)):
        assert sources[split] == [raw[i] for i in numbers[own]]
    # without the dropped and the added pairs, the outputs are those of each split alone
    kept, _ = distil(tmp_path / "alone", "--all-train-splits", data=two_splits)
    assert side(kept, "en") == side(distilled[0], "en")
    folders = []
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        shard = ["--shard", f"{i}/2"]
        folders.append(distil(tmp_path / str(i), *options, *shard, data=two_splits)[0])
    merged = tmp_path / "merged"
    succeed(tmp_path, "difformer", "distill", "--merge", *reversed(folders), "--out", merged)
    (found, manifest), (expected, of_whole) = contents(merged), contents(whole)
    assert manifest == of_whole
    assert {name: data for name, data in found.items() if "receipt" not in name} == {
        name: data for name, data in expected.items() if "receipt" not in name
    }


def test_dropped_pairs_and_added_raw_ones(corpus, distil, tmp_path):
    (tmp_path / "kept").mkdir()
    kept, _ = distil(tmp_path / "kept", *TEST)
    out, printed = distil(tmp_path, *TEST, "--on-failure", "drop", "--add-raw", 1)
    failed = failures(out)
    assert failed and failed.keys() == failures(kept).keys()
    assert {row[1] for row in failed.values()} == {"dropped"}
    rows = [i for i in range(SENTENCES) if i not in failed]
    for language in ("de", "en"):
        raw, whole = (side(folder, language, "test") for folder in (corpus.joined, kept))
        assert side(out, language, "test") == [s[i] for s in (whole, raw) for i in rows]
    assert f"{2 * len(rows)} pairs written, {len(rows)} of them raw" in printed
    assert np.load(out / "distilled.sentences.npy").tolist() == [*rows, *rows]


def test_the_output_folder_may_be_a_link(distil, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "distilled").symlink_to(tmp_path / "elsewhere")
    out, _ = distil(tmp_path, *TEST)
    assert out.is_symlink() and (tmp_path / "elsewhere" / "test.de-en.en.bin").exists()


def test_replaced_failures(corpus, drilled_teacher, distil, tmp_path):
    """Each is the first hypothesis of fairseq-generate --nbest that is not a failure."""
    out, printed = distil(tmp_path, *TEST, "--on-failure", "replace")
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, "--path", drilled_teacher, "--nbest", 5),
        *("--beam", 5, *SEARCH, "--required-batch-size-multiple", 1, "--cpu"),
        *("--user-dir", TASK[3], "--batch-size", 50),
    )
    candidates = {}
    for sentence, text in outcome.lines("H"):
        candidates.setdefault(sentence, []).append(text.split())
    sources, targets = (
        [line.split() for line in lines(corpus.text / f"test.{language}")]
        for language in ("de", "en")
    )
    dictionary, found = Dictionary.load(str(out / "dict.en.txt")), side(out, "en", "test")
    replaced = 0
    for i, row in failures(out).items():
        good = [c for c in candidates[i] if failure(c, sources[i], targets[i], 12) is None]
        assert row[1] == ("next hypothesis" if good else "raw")
        assert dictionary.string(found[i]).split() == (good[0] if good else targets[i])
        replaced += bool(good)
    assert replaced and f"{replaced} with the next hypothesis" in printed


def test_best_bleu_takes_the_nearest_hypothesis(corpus, drilled_teacher, distil, tmp_path):
    """Of all hypotheses of fairseq-generate --nbest that are no failures."""
    out, printed = distil(tmp_path, *TEST, "--choose", "best-bleu")
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, "--path", drilled_teacher, "--nbest", 5),
        *("--beam", 5, *SEARCH, "--required-batch-size-multiple", 1, "--cpu"),
        *("--user-dir", TASK[3], "--batch-size", 50),
    )
    candidates = {}
    for sentence, text in outcome.lines("H"):
        candidates.setdefault(sentence, []).append(text)
    sources, targets = (lines(corpus.text / f"test.{language}") for language in ("de", "en"))
    dictionary, found = Dictionary.load(str(out / "dict.en.txt")), side(out, "en", "test")
    changed, before, after = 0, 0.0, 0.0
    for i, (source, target) in enumerate(zip(sources, targets)):
        bleu = {
            text: sentence_bleu(remove_bpe(text), [remove_bpe(target)], tokenize="none").score
            for text in candidates[i]
        }
        good = [
            text
            for text in candidates[i]
            if failure(text.split(), source.split(), target.split(), 12) is None
        ]
        best = max(good, key=bleu.__getitem__, default=candidates[i][0])
        assert dictionary.string(found[i]) == (best if good else target)
        assert (i in failures(out)) == (not good)
        changed += best != candidates[i][0]
        before, after = before + bleu[candidates[i][0]], after + bleu[best]
    assert SENTENCES / 10 < changed < SENTENCES
    line = f"{changed} lines changed from the likeliest hypothesis; mean sentence BLEU "
    assert f"{line}{before / SENTENCES:.2f} before, {after / SENTENCES:.2f} after" in printed
    assert '"--choose": "best-bleu"' in (out / "distilled.json").read_text()


@pytest.mark.parametrize("kills", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_kills_do_not_change_the_result(corpus, drilled_teacher, distilled, tmp_path, kills):
    """Each kill comes a random moment after some batch was decoded, and loses one batch at most."""
    out = tmp_path / "distilled"
    command = ["difformer", "distill", corpus.joined, "--teacher", drilled_teacher, "--out", out]
    decoded = run_with_kills(tmp_path, [*command, *SEARCH, *BATCHES], out, kills)
    assert contents(out) == contents(distilled[0])
    batches = TRAINING // 4
    assert batches <= decoded <= batches + kills


def test_sources_that_the_teacher_cannot_translate(corpus, drilled_teacher, tmp_path):
    """Too long and empty ones are reported and keep their target."""
    for name in ("train", "valid", "test"):
        for language in ("de", "en"):
            shutil.copy(corpus.text / f"{name}.{language}", tmp_path)
    with open(tmp_path / "test.de", "a") as source, open(tmp_path / "test.en", "a") as target:
        source.write("gut " * 1024 + "\n\n" + "gut " * 20 + "\n")
        target.write("good\nnothing\ngood\n")
    dictionary = ["--srcdict", corpus.joined / "dict.de.txt", "--joined-dictionary"]
    data = binarise(tmp_path, tmp_path / "data", *dictionary)
    command = ["distill", data, "--teacher", drilled_teacher, "--out", tmp_path / "out", *SEARCH]
    printed = succeed(tmp_path, "difformer", *command, "--split", "test").out
    failed = failures(tmp_path / "out")
    assert failed[SENTENCES][:2] == ["source too long", "raw"]
    assert failed[SENTENCES + 1][:2] == ["no source", "raw"]
    assert "1 source too long" in printed and f"{SENTENCES + 1} translated" in printed
    assert side(tmp_path / "out", "de", "test") == side(data, "de", "test")
    assert len(side(tmp_path / "out", "en", "test")) == SENTENCES + 3


@pytest.mark.slow
def test_a_diffusion_model_can_be_the_teacher(corpus, model, tmp_path):
    """It decodes as in fairseq-generate."""
    out = tmp_path / "out"
    command = ["distill", corpus.joined, "--teacher", model, "--out", out, "--split", "test"]
    succeed(tmp_path, "difformer", *command)
    seed = ["--seed", 3]  # that of its training, which the checkpoint holds
    generate = ["fairseq-generate", corpus.joined, *TASK, "--path", model, "--remove-bpe", *seed]
    outcome = succeed(tmp_path, *generate)
    dictionary, failed = Dictionary.load(str(out / "dict.en.txt")), failures(out)
    expected = outcome.translations()
    for i, tokens in enumerate(side(out, "en", "test")):
        found = failed[i][3] if i in failed else dictionary.string(tokens, "@@ ")
        assert found == expected[i]


def test_a_batch_that_exceeds_the_memory_is_halved(corpus, drilled_teacher, monkeypatch):
    """Until it fits; each sentence gets the same translation."""
    difformer_plugin.register()
    from difformer_plugin.distillation.teacher import Teacher
    from difformer_plugin.errors import UserError

    search = {"beam": 2, "max_len_a": 0, "max_len_b": 12}
    teacher = Teacher([str(drilled_teacher)], corpus.joined, search)
    teacher.load_split("test")
    sentences = [5, 3, 9, 0, 7, 20, 11]
    expected = teacher.translate(sentences)
    assert [limit for _, limit in expected] == [12] * 7
    assert len({tuple(best) for (best, *_), _ in expected}) > 3
    step, sizes, held, largest = teacher.task.inference_step, [], [], 3

    def small(generator, models, sample):
        sizes.append(len(sample["id"]))
        if sizes[-1] > largest:
            held.append(weakref.ref(sample["net_input"]["src_tokens"]))
            raise torch.OutOfMemoryError
        assert all(tokens() is None for tokens in held)  # released by the failed attempt
        return step(generator, models, sample)

    monkeypatch.setattr(teacher.task, "inference_step", small)
    assert teacher.translate(sentences) == expected
    assert sizes == [7, 3, 4, 2, 2]
    largest = 0
    with pytest.raises(UserError, match="sentence 5 alone does not fit"):
        teacher.translate(sentences)
    monkeypatch.undo()
    for parameter in teacher.models[0].parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(UserError, match="scores are not finite"):
        teacher.translate(sentences)


@pytest.mark.slow
def test_a_non_autoregressive_teacher(corpus, tmp_path):
    """fairseq's CMLM: sources with BOS, no beam search."""
    succeed(
        tmp_path,
        *("fairseq-train", corpus.joined, "--task", "translation_lev", "--cpu"),
        *("--arch", "cmlm_transformer", "--criterion", "nat_loss", "--noise", "full_mask"),
        *("--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 16, "--encoder-layers", 1),
        *("--decoder-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--decoder-layers", 1),
        *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, *OPTIMISER.split()),
        *("--max-update", 10, "--save-dir", tmp_path, "--required-batch-size-multiple", 1),
    )
    teacher, out = tmp_path / "checkpoint_last.pt", tmp_path / "out"
    command = ["distill", corpus.joined, "--teacher", teacher, "--out", out, "--split", "test"]
    refused = run(tmp_path, "difformer", *command, "--choose", "best-bleu")
    assert "--choose best-bleu: " in refused.err and "has no beam search" in refused.err
    succeed(tmp_path, "difformer", *command)
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, "--path", teacher, "--task", "translation_lev"),
        *("--user-dir", TASK[3], "--cpu", "--required-batch-size-multiple", 1, "--remove-bpe"),
    )
    dictionary, failed = Dictionary.load(str(out / "dict.en.txt")), failures(out)
    assert len(outcome.translations()) == SENTENCES
    for i, tokens in enumerate(side(out, "en", "test")):
        found = failed[i][3] if i in failed else dictionary.string(tokens, "@@ ")
        assert found == outcome.translations()[i]


def test_a_dictionary_in_another_order_gives_a_warning(corpus, distil, distilled, tmp_path):
    """fairseq's own models do not contain their dictionaries, only the number of types."""
    _, printed = distil(tmp_path, data=corpus.other)
    assert "was the teacher trained with these dict.*.txt?" in printed
    assert "warning" not in distilled[1]
