"""Preparation of a corpus: compared with the shell tools of the published scripts, and killed."""

import errno
import json
import multiprocessing
import os
import random
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from difformer_plugin.data import fairseq_preprocess, preparation, recipe, resumable_pass
from difformer_plugin.data.preparation import fingerprint, prepare, unexpected_sizes
from difformer_plugin.data.recipe import Clean, Source, Split
from difformer_plugin.data.sources import read_lines
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.errors import UserError
from difformer_plugin.storage.locks import locked_folder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PLAIN = replace(recipe.load("plain"), bpe_merges=0)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, "utf-8")
    return folder


@pytest.fixture
def raw(tmp_path):
    """A small but complete corpus."""
    return write(
        tmp_path / "raw",
        **{f"{s}_de": "Ein Hund läuft.\nZwei Hunde.\n" for s in ("train", "valid", "test")},
        **{f"{s}_en": "A dog runs.\nTwo dogs.\n" for s in ("train", "valid", "test")},
    )


def go(raw, out, used=PLAIN, **options):
    return prepare(used, raw, out, ("de", "en"), **({"progress": False} | options))


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def text(out, name):
    return (out / "text" / name).read_text("utf-8").splitlines()


def test_unusual_line_breaks_stay_within_a_line(raw, tmp_path):
    write(raw, test_de="ein\u2028Hund\x85und\rein\x0bTier\x1f.\nx\n")
    go(raw, tmp_path / "out")
    # Read with universal newlines, as in fairseq-preprocess.
    assert text(tmp_path / "out", "test.de") == ["ein Hund und ein Tier .", "x"]
    reference = (tmp_path / "out" / "reference" / "test.de").read_text("utf-8")
    assert reference.splitlines() == ["ein Hund und ein Tier\x1f.", "x"]


def test_empty_lines_are_removed_from_train_and_counted(raw, tmp_path):
    write(raw, train_de="a\n\n \u2003\nd\n\x01\n", train_en="1\n2\n3\n4\n5\n")
    counts = go(raw, tmp_path / "out").counts["train"]
    assert counts == {"pairs": 2, "lines": 5, "empty": 3}
    assert text(tmp_path / "out", "train.de") == ["a", "d"]
    assert text(tmp_path / "out", "train.en") == ["1", "4"]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_empty_line_in_a_scored_split_is_an_error(raw, tmp_path, split):
    write(raw, **{f"{split}_de": "a\nb\n", f"{split}_en": "1\n\n"})
    with pytest.raises(UserError, match=rf"{split}\.en, line 2: empty, and {split} is scored"):
        go(raw, tmp_path / "out", workers=2)


def test_an_empty_train_is_an_error(raw, tmp_path):
    write(raw, train_de="\nb\n", train_en="1\n\n")
    with pytest.raises(UserError, match=r"train: no pair is left \(2 empty\)"):
        go(raw, tmp_path / "out")
    with pytest.raises(UserError, match=r"train: no pair is left \(2 empty\)"):
        go(raw, tmp_path / "out")


def test_after_a_failure_the_corrected_input_is_read_again(raw, tmp_path):
    write(raw, test_de="only one line\n")
    with pytest.raises(UserError, match=r"test\.de has 1 lines"):
        go(raw, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["unfinished"]
    write(raw, train_de="Neu.\nAuch.\n", test_de="eins\nzwei\n")
    go(raw, tmp_path / "out")
    assert text(tmp_path / "out", "train.de") == ["Neu .", "Auch ."]
    assert not (tmp_path / "out" / "unfinished").exists()


def test_a_finished_run_is_recognised_and_a_foreign_folder_refused(raw, tmp_path):
    first = go(raw, tmp_path / "out")
    before = tree(tmp_path / "out")
    again = go(raw, tmp_path / "out")
    assert again.known and not first.known and again.counts == first.counts
    assert tree(tmp_path / "out") == before
    with pytest.raises(UserError, match="made of other files, by another recipe"):
        go(raw, tmp_path / "out", replace(PLAIN, bpe_merges=3))
    (tmp_path / "other" / "text").mkdir(parents=True)
    with pytest.raises(UserError, match="other holds a text that this command did not make"):
        go(raw, tmp_path / "other")


def hold(folder, held, release):
    with locked_folder(folder):
        held.set()
        release.wait()


def test_a_second_process_is_refused(raw, tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out" / "unfinished", held, release))
    other.start()
    held.wait()
    with pytest.raises(UserError, match="out/unfinished is in use by another process"):
        go(raw, tmp_path / "out")
    release.set()
    other.join()
    go(raw, tmp_path / "out")


def test_the_fingerprint_depends_on_files_languages_and_recipe(raw, tmp_path):
    def key(used=PLAIN, langs=("de", "en")):
        return fingerprint(used, raw, langs)

    keys = [key(), key(langs=("en", "de")), key(replace(PLAIN, clean=Clean(max=9)))]
    write(raw, train_de="other\nlines\n")
    assert len({*keys, key()}) == 4 and key() == key()


def test_cleaning_by_number_of_subwords(raw, tmp_path):
    """A word of ten letters without any merge has ten subwords."""
    write(raw, train_de="aabab\nabab abab\nxyzxqwvkjh ab\n", train_en="cdcd\ncd cd\ncd cd\n")
    used = replace(PLAIN, bpe_merges=2, clean=Clean(max=8, units="subwords"))
    counts = go(raw, tmp_path / "out", used).counts["train"]
    assert counts == {"pairs": 2, "lines": 3, "too long": 1}
    assert len(text(tmp_path / "out", "train.en")) == 2


def test_a_split_of_every_nth_kept_pair(raw, tmp_path):
    lines = [f"w{n}" for n in range(30)]
    lines[4] = ""
    write(raw, train_de="\n".join(lines), train_en="\n".join(lines))
    used = replace(PLAIN, valid=Split(every=10))
    counts = go(raw, tmp_path / "out", used).counts
    kept = [line for line in lines if line]
    assert text(tmp_path / "out", "valid.en") == kept[9::10]
    assert text(tmp_path / "out", "train.en") == [w for i, w in enumerate(kept) if i % 10 != 9]
    assert (counts["train"]["pairs"], counts["valid"]["pairs"]) == (27, 2)
    assert (tmp_path / "out" / "reference" / "valid.de").read_text().split() == kept[9::10]
    with pytest.raises(UserError, match="fewer than 100 pairs: none is left for valid"):
        go(raw, tmp_path / "other", replace(PLAIN, valid=Split(every=100)))


def test_sizes_that_differ_by_more_than_half_a_percent_are_reported():
    counts = {"train": {"pairs": 1006}, "valid": {"pairs": 995}, "test": {"pairs": 1000}}
    named = replace(PLAIN, pairs=dict.fromkeys(counts, 1000), pairs_from="Table 20")
    assert unexpected_sizes(named, counts) == [
        "train has 1,006 pairs, but 1,000 according to Table 20 (+0.6%)"
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, train=1800, valid=20, test=20)
    return folder


SUBWORDS = replace(PLAIN, bpe_merges=60, valid=Split(every=7))


@pytest.mark.slow
def test_the_same_bytes_for_any_number_of_workers_and_after_kills(corpus, tmp_path):
    go(corpus, tmp_path / "whole", SUBWORDS)
    go(corpus, tmp_path / "parallel", SUBWORDS, workers=3)
    expected = tree(tmp_path / "whole")
    assert tree(tmp_path / "parallel") == expected
    draw, kills = random.Random(1), 0
    context = multiprocessing.get_context("fork")
    while True:
        arguments = (corpus, tmp_path / "killed", SUBWORDS)
        process = context.Process(target=go, args=arguments, kwargs={"workers": 1 + kills % 2})
        process.start()
        # Longer and longer, so that a busy machine finishes in the end.
        process.join(draw.uniform(0.05, 0.5) * (1 + kills / 20))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        assert not (tmp_path / "killed" / "prepare.json").exists()
    assert process.exitcode == 0 and kills >= 2
    assert tree(tmp_path / "killed") == expected


def test_a_kill_between_the_last_renames(corpus, tmp_path, monkeypatch):
    go(corpus, tmp_path / "whole", SUBWORDS)
    real = os.replace

    def fail(old, new):
        if Path(new).name == "reference":
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(preparation.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        go(corpus, tmp_path / "out", SUBWORDS)
    monkeypatch.undo()
    go(corpus, tmp_path / "out", SUBWORDS)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_text_first_and_the_data_bin_in_a_second_run(raw, tmp_path):
    made = []

    def binarise(text, folder, langs, workers):
        made.append((sorted(p.name for p in text.iterdir()), langs))
        folder.mkdir()

    out = tmp_path / "out"
    assert not go(raw, out).known
    before = (out / "text" / "train.de").stat()
    assert not go(raw, out, binarise=binarise).known
    assert go(raw, out, binarise=binarise).known
    texts = [f"{s}.{lang}" for s in ("test", "train", "valid") for lang in ("de", "en")]
    assert made == [(["pipeline.json", *texts], ("de", "en"))]
    assert (out / "text" / "train.de").stat() == before
    assert not (out / "unfinished").exists()


def test_a_data_bin_needs_the_text(raw, tmp_path):
    go(raw, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "text")
    with pytest.raises(UserError, match="text is gone, from which data-bin is made: remove .*out"):
        go(raw, tmp_path / "out", binarise=lambda *unused: None)


def test_moved_and_touched_files_are_recognised_but_not_changed_ones(raw, tmp_path):
    go(raw, tmp_path / "out")
    for path in raw.iterdir():
        os.utime(path, (1, 1))
    moved = tmp_path / "moved" / "deep"
    moved.parent.mkdir()
    raw.rename(moved)
    assert go(moved.parent, tmp_path / "out").known
    write(moved, train_de="Ein Hund rennt.\nZwei Hunde.\n")
    with pytest.raises(UserError, match="made of other files"):
        go(moved.parent, tmp_path / "out")


def test_results_below_the_raw_folder_are_not_read(raw, tmp_path):
    go(raw, raw / "out")
    os.symlink(raw, tmp_path / "link")
    assert go(tmp_path / "link", tmp_path / "raw" / ".." / "link" / "out").known
    assert not go(raw, raw / "second").known


def test_a_full_disk_is_reported_and_the_run_resumes(corpus, tmp_path, monkeypatch):
    def full(*unused):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumable_pass.os, "fsync", full)
    with pytest.raises(UserError, match=r"--out .*out could not be written \(No space left"):
        go(corpus, tmp_path / "out", SUBWORDS)
    monkeypatch.undo()
    go(corpus, tmp_path / "out", SUBWORDS)
    go(corpus, tmp_path / "other", SUBWORDS)
    assert tree(tmp_path / "out") == tree(tmp_path / "other")


def test_an_empty_segment_is_reported_with_the_line_of_its_own_file(raw, tmp_path):
    write(raw, test_de='<seg id="1">a</seg>\n', test_en='<x>\n\n<seg id="1"> </seg>\n')
    segments = Split(files=[Source(file="test.{lang}", format="segments")])
    with pytest.raises(UserError, match=r"test\.en, line 3: empty"):
        go(raw, tmp_path / "out", replace(PLAIN, test=segments))


def test_the_data_bin_holds_the_text(corpus, tmp_path):
    """fairseq reads the text back; the dictionary is joint; no file depends on the folder."""
    from fairseq.data import Dictionary
    from fairseq.data.data_utils import load_indexed_dataset

    def binarise(folder):
        go(corpus, folder, SUBWORDS, binarise=fairseq_preprocess.binarise, workers=2)
        return folder / "data-bin"

    data = binarise(tmp_path / "one")
    dictionary = Dictionary.load(str(data / "dict.de.txt"))
    assert (data / "dict.de.txt").read_bytes() == (data / "dict.en.txt").read_bytes()
    for split in ("train", "valid", "test"):
        for lang in ("de", "en"):
            sentences = load_indexed_dataset(str(data / f"{split}.de-en.{lang}"), dictionary)
            lines = text(tmp_path / "one", f"{split}.{lang}")
            assert [dictionary.string(tokens) for tokens in sentences] == lines
    assert sorted(p.name for p in data.iterdir() if p.suffix not in (".idx", ".bin")) == [
        "codes",
        "dict.de.txt",
        "dict.en.txt",
        "pipeline.json",
    ]
    assert tree(binarise(tmp_path / "two")) == tree(data)


def run(pipeline, **files):
    """Run a shell pipeline, as in the published scripts."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", pipeline], check=True, env=environment)


CLEAN = r"""a = split($1, x, " ") { } { b = split($2, y, " ") }
a > 0 && b > 0 && a <= 175 && b <= 175 && a / b <= 1.5 && b / a <= 1.5 { print }"""


@pytest.mark.skipif(not (DATA / "ted-xml").is_dir(), reason="TED is not beside the repository")
def test_iwslt14_equals_the_published_script(tmp_path):
    """grep, sed, awk and the command-line tools of sacremoses and subword-nmt give the same."""
    raw, out, own = tmp_path / "raw", tmp_path / "out", tmp_path / "own"
    raw.mkdir(), own.mkdir()
    names = ["TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"]
    for lang in ("de", "en"):
        talk = []
        for name in names:
            file = f"IWSLT16.{name}.de-en.{lang}.xml"
            lines = list(read_lines(DATA / "ted-xml" / file))[:120]
            (raw / file).write_text("\n".join(lines) + "\n", "utf-8")
            talk += [line.removeprefix("<seg").partition(">")[2] for line in lines]
        # tagged training text: tags, titles, and lines without either
        tagged = [f"<title>{t}</title>" if i % 40 == 0 else t for i, t in enumerate(talk)]
        tagged[5], tagged[17], tagged[90] = "<url>x</url>", "<keywords>y</keywords>", "<talkid>3"
        tagged[30] = "viele Wörter " * 100 if lang == "de" else "many words " * 100
        (raw / f"train.tags.de-en.{lang}").write_text("\n".join(tagged) + "\n", "utf-8")
        moses = f"sacremoses -l {lang} -j 1 -q tokenize"
        run(
            f"cd {shlex.quote(str(tmp_path))}; grep -v '<url>' raw/train.tags.de-en.{lang}"
            " | grep -v '<talkid>' | grep -v '<keywords>' | sed -e 's/<title>//g'"
            " -e 's/<\\/title>//g' -e 's/<description>//g' -e 's/<\\/description>//g'"
            f" | {moses} > own/tok.{lang};"
            f" for f in {' '.join(names)}; do grep '<seg id' raw/IWSLT16.$f.de-en.{lang}.xml; done"
            " | sed -e 's/<seg id=\"[0-9]*\">\\s*//g' -e 's/\\s*<\\/seg>\\s*//g' -e \"s/\\’/\\'/g\""
            f" | {moses} | python -c 'import sys; print(sys.stdin.read().lower(), end=\"\")'"
            f" > own/test.{lang}"
        )
    run(
        f"cd {shlex.quote(str(own))}; paste tok.de tok.en | awk -F '\t' '{CLEAN}'"
        " | python -c 'import sys; print(sys.stdin.read().lower(), end=\"\")' > clean;"
        "for n in 1 2; do l=$([ $n = 1 ] && echo de || echo en);"
        " cut -f $n clean | awk 'NR % 23 == 0' > valid.$l;"
        " cut -f $n clean | awk 'NR % 23 != 0' > train.$l; done;"
        "cat train.de train.en | subword-nmt learn-bpe -s 300 > codes 2> /dev/null;"
        "for f in train valid test; do for l in de en; do"
        " subword-nmt apply-bpe -c codes < $f.$l > $f.bpe.$l; done; done"
    )
    iwslt = replace(recipe.load("iwslt14-de-en"), bpe_merges=300)
    counts = go(raw, out, iwslt, workers=2).counts
    for split in ("train", "valid", "test"):
        for lang in ("de", "en"):
            expected = (own / f"{split}.bpe.{lang}").read_text("utf-8").splitlines()
            assert text(out, f"{split}.{lang}") == expected
            assert len(expected) == counts[split]["pairs"] > 10
    assert (own / "codes").read_bytes() == (out / "text" / "codes").read_bytes()
    assert json.loads((out / "prepare.json").read_text())["counts"] == counts
    assert counts["train"]["too long"] >= 1 and counts["train"]["lengths too different"] >= 1
