"""fairseq's search for the library of the Levenshtein Transformer."""

from fairseq.models.nat import levenshtein_utils

from difformer_plugin.fairseq_patches import levenshtein_library


def test_the_library_is_looked_for_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        levenshtein_utils, "load_libnat", lambda: calls.append(1) or ("library", False)
    )
    levenshtein_library.install()
    found = [levenshtein_utils.load_libnat() for _ in range(3)]
    assert found == [("library", False)] * 3 and calls == [1]
