"""The file of --history-file: the tokens of each step with their probabilities, as JSON lines."""

import json
import math
import os

from difformer_plugin.errors import UserError

MASK = "[MASK]"  # of discrete diffusion, the index after the dictionary's last


class HistoryFile:
    """Writes the steps of the best candidates, batch by batch as they are translated.

    A line is {"id": sentence number, "step": k, "tokens": [...], "probabilities": [...]}; steps
    count from 0 in the order run, and each token has its softmax probability in the rounding,
    or null where that is no number. fairseq does not say when it ends, so a run that is cut short
    leaves a shorter file, which a reader can tell by the sentences that it lacks.

    Args:
        path: a file that is not there yet; it is made with the first batch.
        dictionary: the target dictionary.
    Raises:
        UserError: the file is there. Another run, or another shard of this one, may be writing it.
    """

    def __init__(self, path, dictionary):
        if os.path.exists(path):
            raise self._there(path)
        self.path, self.dictionary, self.mode = path, dictionary, "x"

    @staticmethod
    def _there(path):
        return UserError(
            f"--history-file {path} is there already: remove it, or name another (one for each "
            "shard of several)"
        )

    def _symbol(self, token):
        return MASK if token == len(self.dictionary) else self.dictionary[token]

    def write(self, sample, sentences):
        """Append a batch.

        Args:
            sample: fairseq's; its "id" (B,) holds the sentence numbers.
            sentences: for each sentence its hypotheses, the best first.
        """
        if "id" not in sample:
            raise UserError(
                "--history-file: the sentences have no numbers here; use fairseq-generate"
            )
        lines = []
        for number, (best, *_) in zip(sample["id"].tolist(), sentences):
            for k, step in enumerate(best["history"]):
                line = {
                    "id": number,
                    "step": k,
                    "tokens": [self._symbol(token) for token in step["tokens"].tolist()],
                    "probabilities": [
                        round(p, 5) if math.isfinite(p) else None  # JSON has no NaN
                        for p in step["positional_scores"].exp().tolist()
                    ],
                }
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        try:
            with open(self.path, self.mode, encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
        except FileExistsError:
            raise self._there(self.path) from None
        self.mode = "a"
