"""A distilled data-bin: its files, which appear all at once, and its merging from shards."""

import contextlib
import json
import os
import shutil
from array import array
from pathlib import Path

import numpy as np

from difformer_plugin.distillation.journaled import Tally, difference, digest
from difformer_plugin.errors import UserError

# Names of three parts whose second has no hyphen: fairseq takes none of them for a split.
MANIFEST, NUMBERS = "distilled.json", "distilled.sentences.npy"
FAILURES = "distilled.failures.tsv"
COLUMNS = "sentence (from 0)\tcause\ttarget\tsource\toutput\n"
ABSENT, OUTPUT, RAW, DROPPED = range(4)


class Choice:
    """The target of each sentence of a shard, from the journal, and what became of failures.

    `kinds` (N,) says of every sentence of the split whether it is another shard's, has an output,
    keeps its raw target, or is dropped; `failures` lists (sentence, cause, kind, output).
    """

    def __init__(self, plan, journal, on_failure):
        self.kinds = np.full(plan.lines, ABSENT, dtype=np.int8)
        self.failures, self.replaced = [], 0
        self._tokens = array("i")  # of all outputs, one after the other
        self._start = np.zeros(plan.lines, dtype=np.int64)
        self._end = np.zeros(plan.lines, dtype=np.int64)
        without = DROPPED if on_failure == "drop" else RAW
        for record in journal.records():
            for sentence, output in zip(record["sentences"], record["outputs"], strict=True):
                failure = record["failures"].get(str(sentence))  # JSON's keys are strings
                if failure is None:
                    self._set(sentence, OUTPUT, output)
                    continue
                cause, instead = failure
                use = on_failure == "replace" and instead is not None
                self._set(sentence, OUTPUT if use else without, instead if use else ())
                self.replaced += use
                self.failures.append((sentence, cause, self.kinds[sentence], output))
        for sentence, cause in plan.failures.items():
            self._set(sentence, without)
            self.failures.append((sentence, cause, without, ()))
        if np.count_nonzero(self.kinds) != plan.sentences():
            raise UserError(f"{journal.path} lacks sentences: remove it and run the command again")
        self.failures.sort()

    def _set(self, sentence, kind, output=()):
        if self.kinds[sentence] != ABSENT:
            raise UserError(f"sentence {sentence} is there twice: remove the unfinished folder")
        self.kinds[sentence] = kind
        self._start[sentence] = len(self._tokens)
        self._tokens.extend(output)
        self._end[sentence] = len(self._tokens)

    def rows(self):
        """The sentences that are kept, in their order."""
        return np.flatnonzero((self.kinds == OUTPUT) | (self.kinds == RAW))

    def output(self, sentence):
        """The tokens of its output, without EOS, or None if the raw target stays."""
        if self.kinds[sentence] == RAW:
            return None
        return self._tokens[self._start[sentence] : self._end[sentence]]


def drawn(lines, share, seed):
    """Which pairs of the split are added raw: (N,) booleans, the same for every shard."""
    return np.random.RandomState(seed).random_sample(lines) < share


def report_lines(choice, source_text, output_text):
    """The lines of the report of failures."""
    done = {OUTPUT: "next hypothesis", RAW: "raw", DROPPED: "dropped"}
    for sentence, cause, kind, output in choice.failures:
        texts = source_text(sentence), output_text(output)
        yield "\t".join([str(sentence), cause, done[int(kind)], *texts]) + "\n"


def work_folder(out):
    """Where the journal and the unfinished data-bin of `out` are."""
    return Path(f"{out}.unfinished")


def check_out(out, manifest):
    """Whether `out` is finished; it may also not exist, or be empty.

    Raises:
        UserError: something else is there.
    """
    if (out / MANIFEST).is_file():
        try:
            found = json.loads((out / MANIFEST).read_text("utf-8"))
            theirs = dict(found["setting"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{out / MANIFEST} is damaged: remove {out}") from None
        if differs := difference(theirs, manifest["setting"]):
            raise UserError(f"{out} was distilled with {differs}: give another --out or remove it")
        shutil.rmtree(work_folder(out), ignore_errors=True)  # a kill after the last step left it
        return found
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} holds other things: name a folder that is new or empty")
    return None


@contextlib.contextmanager
def building(out):
    """A folder to write a data-bin to, which then takes its name at once."""
    folder = work_folder(out) / "data-bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    os.replace(folder, out)
    _sync(out.absolute().parent)
    shutil.rmtree(work_folder(out))


def _sync(path):
    """Have the disk hold what a file or folder says."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(folder, manifest, pairs, numbers, report, dictionaries):
    """Write the files of a distilled data-bin but those that are copied.

    Args:
        pairs: (source, target), tensors of tokens with EOS.
        numbers: of the pairs' sentences in the raw split.
        report: lines of the report of failures, without the title.
        dictionaries: of source and target; their sizes decide on the bytes of a token.
    """
    from fairseq.data import indexed_dataset

    setting = manifest["setting"]
    stems = [folder / f"{manifest['name']}.{setting[side]}" for side in ("source", "target")]
    builders = [
        indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
        for stem, dictionary in zip(stems, dictionaries)
    ]
    for pair in pairs:
        for builder, tokens in zip(builders, pair, strict=True):
            builder.add_item(tokens)
    for builder, stem in zip(builders, stems):
        builder.finalize(f"{stem}.idx")
    np.save(folder / NUMBERS, np.asarray(numbers, dtype=np.int64))
    with open(folder / FAILURES, "w", encoding="utf-8", newline="\n") as file:
        file.write(COLUMNS)
        file.writelines(report)
    manifest = {**manifest, "written": _written(folder, manifest)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def check_whole(shards):
    """Raise a UserError for a shard whose files are not those that were written."""
    for shard in shards:
        try:
            whole = shard["written"] == _written(shard["folder"], shard)
        except (OSError, KeyError):
            whole = False
        if not whole:
            raise UserError(f"{shard['folder']} is not as it was written: copy the shard again")


def _written(folder, manifest):
    """A digest of the files of which a copy may be incomplete."""
    sides = [f"{manifest['name']}.{manifest['setting'][side]}" for side in ("source", "target")]
    names = [f"{stem}.{end}" for stem in sides for end in ("idx", "bin")]
    return digest([folder / name for name in (*names, NUMBERS, FAILURES)])


def copy_rest(data, folder, name, split):
    """Copy dictionaries, other splits and whatever else is in a data-bin but this split's."""
    # alignments are those of the raw targets
    left = (f"{name}.", f"{split}.align.", MANIFEST, NUMBERS, FAILURES)
    for path in sorted(Path(data).iterdir()):
        if path.is_file() and not path.name.startswith(left):
            shutil.copyfile(path, folder / path.name)


def read_shards(folders):
    """The manifests of all shards of one distillation, in the shards' order, with `folder` added.

    Raises:
        UserError: one is none, foreign, missing, or there twice.
    """
    shards = {}
    for folder in map(Path, folders):
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            setting = dict(manifest["setting"])
            shard, of = map(int, setting.pop("--shard").split("/"))
        except (OSError, ValueError, KeyError, TypeError):
            unfinished = work_folder(folder).is_dir()
            remedy = "run its command again" if unfinished else "name the --out of each shard"
            raise UserError(f"{folder} holds no finished shard: {remedy}") from None
        if of == 1:
            raise UserError(f"{folder} is no shard, but all of a data-bin: there is nothing to do")
        if not shards:
            first, expected, count = folder, setting, of
        elif differs := difference(setting, expected):
            raise UserError(f"{folder} does not go with {first}: it has {differs}")
        elif of != count:
            raise UserError(f"{folder} is shard {shard}/{of}, but {first} is one of {count}")
        if shard in shards:
            raise UserError(f"{folder} and {shards[shard]['folder']} are both shard {shard}/{of}")
        shards[shard] = {**manifest, "folder": folder}
    if missing := [f"{i}/{count}" for i in range(count) if i not in shards]:
        raise UserError(f"shards are missing: {', '.join(missing)}; name the --out of every shard")
    return [shards[i] for i in range(count)]


def merged(shards):
    """The manifest of what shards make together, without the tally."""
    left = {"folder", "tally", "written"}
    manifest = {name: value for name, value in shards[0].items() if name not in left}
    return {**manifest, "setting": {**manifest["setting"], "--shard": "0/1"}}


def merge(shards, out, dictionaries, progress):
    """Put shards together in the order of the raw split, as if there had been one.

    Args:
        shards: of `read_shards`.
        progress: wraps the iteration over the pairs; called with it and its length.
    Returns:
        the manifest.
    """
    from fairseq.data.data_utils import load_indexed_dataset

    tally, name = Tally(), shards[0]["name"]
    setting = shards[0]["setting"]
    split, sides = setting["split"], [setting["source"], setting["target"]]
    places, data, report = [], [], []
    for i, shard in enumerate(shards):
        folder = shard["folder"]
        tally.add(shard["tally"])
        numbers = np.load(folder / NUMBERS)
        is_raw = np.arange(len(numbers)) >= len(numbers) - shard["tally"]["raw"]
        rows = np.arange(len(numbers))
        places.append(np.stack([is_raw, numbers, np.full_like(rows, i), rows]))
        stems = [str(folder / f"{name}.{side}") for side in sides]
        # a shard of which nothing is left has files that fairseq cannot open
        data.append([load_indexed_dataset(stem) for stem in stems] if len(numbers) else None)
        with open(folder / FAILURES, encoding="utf-8", newline="\n") as file:
            report += list(file)[1:]
    places = np.concatenate(places, axis=1)
    order = np.lexsort((places[1], places[0]))
    distilled = places[1][places[0] == 0]
    lines = shards[0]["lines"]
    if len(np.unique(distilled)) != len(distilled) or len(distilled) + tally.dropped != lines:
        raise UserError(f"the shards do not hold each of {lines} sentences once: distill them anew")
    manifest = {**merged(shards), "tally": vars(tally)}
    pairs = ((side[row] for side in data[i]) for _, _, i, row in places[:, order].T.tolist())
    with building(out) as folder:
        copy_rest(shards[0]["folder"], folder, name, split)
        report.sort(key=lambda line: int(line.split("\t")[0]))
        numbers = places[1][order]
        write(folder, manifest, progress(pairs, len(order)), numbers, report, dictionaries)
    return manifest
