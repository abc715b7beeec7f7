"""Conversion between plain text and Moses tokens."""

from functools import cache

from difformer_plugin.data.tokenisation import detokeniser, tokeniser
from difformer_plugin.errors import UserError


class MosesText:
    """Converts sentences of one language between plain text and Moses tokens.

    Conversions are cached, since most decoding steps and candidates repeat each other.

    Args:
        language: two-letter code; None raises a UserError at the first conversion only, so that a
            language is required only where it matters.
        lowercase: lower-case all text.
        split_hyphens: tokenise a-b as a @-@ b.
    """

    def __init__(self, language: str | None, lowercase: bool, split_hyphens: bool = True):
        self.language, self.lowercase, self.split_hyphens = language, lowercase, split_hyphens
        self.tokenise = cache(self._tokenise)
        self.detokenise = cache(self._detokenise)
        self._tools = {}

    def _tool(self, make, *options):
        if self.language is None:
            raise UserError("the target language is unknown: give it, as in --target-lang de")
        if make not in self._tools:
            self._tools[make] = make(self.language, *options)
        return self._tools[make]

    def _tokenise(self, text):
        return self._tool(tokeniser, self.split_hyphens)(text)

    def _detokenise(self, tokens):
        return self._tool(detokeniser)(tokens)

    def both_forms(self, sentence: str, tokenised: bool) -> tuple[str, str]:
        """A sentence as plain text and as Moses tokens.

        Args:
            tokenised: whether `sentence` is in Moses tokens.
        """
        sentence = sentence.lower() if self.lowercase else sentence
        if tokenised:
            return self.detokenise(sentence), sentence
        return sentence, self.tokenise(sentence)
