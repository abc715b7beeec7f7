from pathlib import Path

from setuptools import find_packages, setup

version = next(
    line.split('"')[1]
    for line in Path("difformer_plugin/__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

setup(
    name="difformer-plugin",
    version=version,
    description="Diffusion translation for fairseq: Difformer, with its training and decoding",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["difformer_plugin", "difformer_plugin.*"]),
    package_data={
        "difformer_plugin.data": ["recipes/*.toml"],
        "difformer_plugin.evaluation": ["templates/*.j2"],
    },
    install_requires=[
        # fairseq 0.12 for Python 3.11 and later, imported as `fairseq`
        "fairseq-fixed==0.12.3.1",
        # the first version that unpickles weights only unless told otherwise
        "torch>=2.6",
        "numpy>=1.26",
        "safetensors>=0.4",
        "sacrebleu>=2.3",
        "sacremoses>=0.1",
        "subword-nmt>=0.3.8",
        "tqdm",
        "scipy",
        "matplotlib",
        "jinja2",
        "shtab>=1.7",
    ],
    extras_require={
        "tensorboard": ["tensorboard", "tensorboardX"],
        # what difformer evaluate can do without: ROUGE, BERTScore, COMET
        "evaluate": ["rouge-score", "bert-score", "unbabel-comet"],
        # an alternative to the BPE of subword-nmt in difformer prepare
        "sentencepiece": ["sentencepiece>=0.1.99"],
        "docs": ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1"],
        "test": [
            "pytest",
            "hypothesis>=6.100",
            "pytest-xdist",
            "ruff",
            "mypy",
            "tensorboard",
            "tensorboardX",
            "rouge-score",
            "sentencepiece>=0.1.99",
        ],
    },
    entry_points={"console_scripts": ["difformer=difformer_plugin.cli.main:main"]},
)
