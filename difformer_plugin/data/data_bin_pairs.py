"""The pairs of a data-bin's split, as tokens and as words."""

from fairseq.data.data_utils import load_indexed_dataset, post_process

from difformer_plugin.data.data_bin import check_dataset, stem_of
from difformer_plugin.errors import UserError


def check_mark(mark):
    """Raise a UserError unless fairseq's --post-process knows this mark of subwords."""
    try:
        post_process("", mark)
    except NotImplementedError:  # what fairseq raises for a name that it does not know
        raise UserError(f"--post-process '{mark}' is none that fairseq knows, as '@@ '") from None


class RawPairs:
    """A split of a data-bin.

    Args:
        data: the data-bin.
        languages: of source and target.
        dictionaries: theirs.
        mark: how subwords are joined, as fairseq's --post-process.
    Raises:
        UserError: the split is not there, or has no targets.
    """

    def __init__(self, data, split, languages, dictionaries, mark):
        check_dataset(data, split, *languages)
        self.stems = [stem_of(data, split, *languages, language) for language in languages]
        if self.stems[1] is None:
            raise UserError(
                f"{data}: {split} has no {languages[1]} side; distillation replaces targets, so "
                "binarise both sides with fairseq-preprocess"
            )
        check_mark(mark)
        self.dictionaries, self.mark = dictionaries, mark
        self.sides = [load_indexed_dataset(str(stem), None, None) for stem in self.stems]

    def __len__(self):
        return len(self.sides[0])

    def source_lengths(self):
        """Source tokens of each sentence, without EOS, (N,)."""
        return self.sides[0].sizes - 1

    def tokens(self, sentence):
        """Source and target as lists, without EOS."""
        return [side[sentence].tolist()[:-1] for side in self.sides]

    def target_words(self, tokens, escape_unk=False):
        """Target tokens as text; an escaped <unk> of a reference is matched by nothing."""
        return self.dictionaries[1].string(tokens, self.mark, escape_unk)

    def source_words(self, sentence):
        """A source as text."""
        return self.dictionaries[0].string(self.sides[0][sentence], self.mark)
