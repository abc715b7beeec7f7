"""fairseq without scikit-learn: what is imported, and that its functions still work."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
{first}
import {second}
loaded = [name in sys.modules for name in ("sklearn", "scipy.stats")]
from fairseq.criterions import sentence_prediction
from fairseq.tasks import audio_classification
results = [
    sentence_prediction.f1_score([1, 0, 1, 1], [1, 1, 1, 0]),
    sentence_prediction._matthews_corrcoef([1, 0, 1, 1], [1, 1, 1, 0]),
    sentence_prediction.pearsonr([1, 2, 3], [1, 2, 4])[0],
    list(audio_classification.sklearn_metrics.roc_curve([0, 1, 1], [0.1, 0.4, 0.3])[1]),
]
from sklearn.metrics import f1_score
from scipy.stats import pearsonr
real = f1_score([1, 0, 1, 1], [1, 1, 1, 0]), pearsonr([1, 2, 3], [1, 2, 4])[0]
print(json.dumps([loaded, results, real, sentence_prediction.__file__]))
"""


@pytest.fixture(scope="module")
def outcome():
    """Runs the script, with and without the plug-in before fairseq."""

    def run(first):
        script = SCRIPT.format(first=first, second="fairseq")
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(result.stdout.splitlines()[-1])

    return {name: run(first) for name, first in (("quick", "import difformer_plugin"), ("own", ""))}


@pytest.mark.slow
def test_the_plug_in_leaves_the_statistics_until_they_are_called(outcome):
    assert outcome["quick"][0] == [False, False]
    assert outcome["own"][0] == [True, True]  # else this file and the finder can go


def test_fairseqs_functions_return_what_they_did(outcome):
    assert outcome["quick"][1:] == outcome["own"][1:]
    results, real = outcome["quick"][1:3]
    assert results[0] == pytest.approx(2 / 3) and [results[0], results[2]] == real
