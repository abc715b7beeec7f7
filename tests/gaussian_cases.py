"""Gaussian processes in the forms of noise rescaling, for the tests."""

from difformer_plugin.diffusion.gaussian.process import GaussianProcess

FORMS = {"plain": (1.0, False), "eq. 3": (4.0, False), "eq. 8": (4.0, True)}


def process(schedule="sqrt", form="eq. 3", steps=200):
    factor, vp_rf = FORMS[form]
    return GaussianProcess.create(schedule, steps, factor, vp_rf)


def variances(form, alpha_bar):
    """The variance of q(z_t | z_0), by the form: F^2 beta-bar, or beta-bar as it is."""
    return (1 - alpha_bar) * (16 if form == "eq. 3" else 1)
