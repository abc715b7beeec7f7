"""The probe of Fig. 2a: what the denoiser makes of pure noise when it is told a time."""

from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions


def translate_noise(model, dictionary, batches, time, seed):
    """One prediction of each sentence from pure noise, the denoiser being told `time`.

    Lengths are the likeliest; the noise is that of decoding, of variance 1 and per sentence.

    Args:
        model: a diffusion model, as `DiffusionGenerator` wants it.
        dictionary: of the target.
        batches: fairseq's samples.
        time: t / T in [0, 1).
    Yields:
        the sentence's index in its data set and the tokens, framed by BOS and EOS.
    """
    options = DecodingOptions(decoding_steps=1, decoding_fixed_t=time)
    generator = DiffusionGenerator(dictionary, options, seed)
    for sample in batches:
        for index, (best, *_) in zip(sample["id"].tolist(), generator.generate([model], sample)):
            yield index, best["tokens"]


def words(dictionary, tokens, post_process, escape_unk=False):
    """Tokens as text, without the frame and padding, subwords joined as by --post-process."""
    return dictionary.string(
        tokens, post_process, escape_unk, extra_symbols_to_ignore={dictionary.pad()}
    )


def bleu_by_time(model, dictionary, batches, times, seed=1, post_process="@@ ", progress=iter):
    """BLEU of `translate_noise` at each of several times, on tokenised text.

    Args:
        batches: a list of fairseq's samples, with targets.
        times: t / T in [0, 1).
        progress: wraps the iteration over the times, as tqdm does.
    Returns:
        a list of floats, and sacreBLEU's signature.
    """
    metric = BLEU(tokenize="none", force=True)
    references = {
        index: words(dictionary, tokens, post_process, escape_unk=True)  # which nothing matches
        for sample in batches
        for index, tokens in zip(sample["id"].tolist(), sample["target"])
    }
    scores = []
    for time in progress(times):
        drawn = dict(translate_noise(model, dictionary, batches, time, seed))
        hypotheses = [words(dictionary, drawn[index], post_process) for index in references]
        scores.append(metric.corpus_score(hypotheses, [list(references.values())]).score)
    return scores, str(metric.get_signature())
