"""The file that --history-file writes: the tokens of each decoding step, as JSON lines."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

from fairseq.data import Dictionary

from difformer_plugin.errors import UserError

MASK = "[MASK]"  # discrete diffusion's mask, whose index follows the dictionary's last one


class HistoryFile:
    """Writes the decoding steps of each sentence's best candidate, batch by batch.

    A line is {"id": sentence number, "step": k, "tokens": [...], "probabilities": [...]}. Steps are
    counted from 0 in the order in which they are taken. Each token has its probability in the
    rounding step, or null if that is not finite. An interrupted run leaves a file that lacks the
    remaining sentences.

    Args:
        path: a file that does not exist yet; the first batch creates it.
        dictionary: the target dictionary.
    Raises:
        UserError: there is no such folder, or the file exists: another run, or another shard of
            this one, may be writing it.
    """

    def __init__(self, path: str, dictionary: Dictionary):
        if os.path.exists(path):
            raise self._exists(path)
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise UserError(f"--history-file {path}: no such folder; create it, or name another")
        self.path, self.dictionary, self.mode = path, dictionary, "x"

    @staticmethod
    def _exists(path: str) -> UserError:
        return UserError(
            f"--history-file {path} already exists: remove it, or name another file (with "
            "several shards, one for each)"
        )

    def _symbol(self, token: int) -> str:
        return MASK if token == len(self.dictionary) else self.dictionary[token]

    def write(self, sample: dict[str, Any], sentences: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Append a batch.

        Args:
            sample: a batch of fairseq; its "id" (B,) has the sentence numbers.
            sentences: for each sentence its hypotheses, the best first.
        Raises:
            UserError: the sentences have no numbers, or the file exists or cannot be written.
        """
        if "id" not in sample:
            raise UserError(
                "--history-file needs sentence numbers, which this command does not give: use "
                "fairseq-generate"
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
            raise self._exists(self.path) from None
        except OSError as error:
            raise UserError(
                f"--history-file {self.path} could not be written ({error.strerror}): name a file "
                "in a folder with free space that you may write to"
            ) from error
        self.mode = "a"
