"""Settings of the demonstration."""

from dataclasses import dataclass
from pathlib import Path

MAX_UPDATE = 1600
TRAIN_SIZE, TEST_SIZE = 40_000, 500  # of the synthetic corpus


@dataclass(frozen=True)
class Settings:
    """What to demonstrate; the fields are the options of `difformer demo`.

    Attributes:
        out: folder for all files.
        data: folder of raw text; None for the synthetic corpus.
        source_lang, target_lang: languages, which are the endings of the files in `data`.
        max_update: updates of training.
        seed: of training and of decoding.
        corpus_seed: of the synthetic corpus.
        train_size: training pairs of the synthetic corpus.
        test_size: pairs in each of its validation and test sets.
    """

    out: Path
    data: Path | None = None
    source_lang: str = "de"
    target_lang: str = "en"
    max_update: int = MAX_UPDATE
    seed: int = 1
    corpus_seed: int = 1
    train_size: int = TRAIN_SIZE
    test_size: int = TEST_SIZE

    @property
    def langs(self) -> tuple[str, str]:
        """Source and target language."""
        return self.source_lang, self.target_lang
