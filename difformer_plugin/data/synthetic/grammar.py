"""Synthetic German-English corpus, drawn from a probabilistic grammar.

Each German sentence has exactly one English translation, sentences are short and the vocabulary is
small, so that a small model can learn the mapping perfectly in minutes. Gender, case, verb-final
clauses, separable verbs and do-support make word-by-word translation fail.
"""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from difformer_plugin.data.synthetic import lexicon
from difformer_plugin.data.synthetic.lexicon import OBJECTS, VERBS
from difformer_plugin.data.synthetic.syntax import (
    BE,
    MODALS,
    PRONOUNS,
    Clause,
    english_question,
    english_statement,
    front_time,
    german_question,
    german_statement,
    german_subordinate,
    nominal,
    prepositional,
    sentence,
    with_relative,
)
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text

MIN_LENGTH, MAX_LENGTH = 4, 20  # tokens, punctuation included
MAX_REPEATS = 10_000  # draws in a row without a new sentence before giving up

T = TypeVar("T")


class Draw:
    """Random choices that are the same in every version of Python: they use random() alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """An element of a sequence, drawn uniformly."""
        return options[int(self._random() * len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """A key of a dict, drawn in proportion to its weight."""
        point = self._random() * sum(options.values())
        for option, weight in options.items():
            point -= weight
            if point < 0:
                return option
        return option


SUBJECT_DETERMINERS = {"der": 8, "ein": 3, "dieser": 2, "jeder": 1, "mein": 2, "unser": 1}
OBJECT_DETERMINERS = {"der": 8, "ein": 4, "dieser": 1, "mein": 2, "sein": 1, "kein": 2}
PLURAL_SUBJECT_DETERMINERS = {"der": 6, "dieser": 1, "mein": 1, "viele": 2, "einige": 2, "zwei": 2}
PLURAL_OBJECT_DETERMINERS = {"der": 5, "kein": 1, "mein": 1, "viele": 1, "zwei": 2, "drei": 2}
MASS_DETERMINERS = {"der": 6, "mein": 1, "sein": 1, "kein": 2}
TENSES = {"present": 5, "past": 3, "future": 2, "modal": 3}
SUBORDINATE_TENSES = {"present": 3, "past": 2, "modal": 1}
USES = (
    *lexicon.TRANSITIVE,
    *lexicon.DATIVE,
    *lexicon.DITRANSITIVE,
    *lexicon.INTRANSITIVE,
    *lexicon.MOTION,
)


def _phrase(draw, kind, case, subject=False, avoid=""):
    """A noun phrase with a noun of `kind` other than the German word `avoid`; and the noun."""
    noun = draw.pick([noun for noun in OBJECTS[kind].values() if noun.singular != avoid])
    plural = bool(noun.plural) and draw.chance(0.25)
    if not noun.plural:
        determiners = MASS_DETERMINERS
    elif plural:
        determiners = PLURAL_SUBJECT_DETERMINERS if subject else PLURAL_OBJECT_DETERMINERS
    else:
        determiners = SUBJECT_DETERMINERS if subject else OBJECT_DETERMINERS
    adjective = _adjective(draw, kind) if draw.chance(0.3) else None
    return nominal(noun, _determiner(draw, determiners, noun), case, adjective, plural), noun


def _determiner(draw, determiners, noun):
    determiner = draw.weighted(determiners)
    owned = determiner in ("mein", "sein", "unser")
    return "der" if owned and noun.singular in lexicon.NOT_OWNED else determiner


def _adjective(draw, kind):
    return lexicon.ADJECTIVES[draw.pick(lexicon.ADJECTIVES_OF[kind])]


def _subject(draw, kind="person"):
    """A subject and its German noun, "" for a pronoun."""
    if kind == "person" and draw.chance(0.15):
        return draw.pick(PRONOUNS), ""
    phrase, noun = _phrase(draw, kind, "nom", subject=True)
    return phrase, noun.singular


def _place(draw, prepositions):
    german, english, case, nouns = draw.pick(prepositions)
    adjective = _adjective(draw, "place") if draw.chance(0.2) else None
    noun = draw.pick(tuple(nouns.values()))
    return prepositional(german, english, nominal(noun, "der", case, adjective))


def _company(draw, avoid):
    german, english, case, nouns = draw.pick(lexicon.COMPANY)
    noun = draw.pick([noun for noun in nouns.values() if noun.singular != avoid])
    determiner = _determiner(draw, {"der": 4, "mein": 2, "sein": 2}, noun)
    return prepositional(german, english, nominal(noun, determiner, case))


def _predicate(draw, name):
    """Verb, objects and `rest` of a clause whose subject has the German noun `name`."""
    verb = draw.pick(lexicon.ANIMAL_VERBS if name in lexicon.ANIMALS else USES)
    objects, rest = (), []
    if verb in lexicon.TRANSITIVE:
        objects = (_phrase(draw, draw.pick(lexicon.TRANSITIVE[verb]), "acc", avoid=name)[0],)
        rest = [_place(draw, lexicon.PLACES)] if draw.chance(0.2) else []
    elif verb in lexicon.DATIVE:
        objects = (_phrase(draw, "person", "dat", avoid=name)[0],)
    elif verb in lexicon.DITRANSITIVE:
        receiver, _ = _phrase(draw, "person", "dat", subject=True, avoid=name)
        objects = (receiver, _phrase(draw, draw.pick(lexicon.GIVEN), "acc")[0])
    else:
        rest = [_company(draw, name)] if draw.chance(0.25) else []
        if verb in lexicon.MOTION:
            rest += [_place(draw, lexicon.DIRECTIONS)]
        elif draw.chance(0.6):
            rest += [_place(draw, lexicon.PLACES)]
    return {"verb": VERBS[verb], "objects": objects, "rest": tuple(rest)}


def _clause(draw, tense=None, subject=None, name="", extras=True):
    """A clause.

    Args:
        tense: drawn if not given.
        subject: drawn if not given.
        name: German noun of the subject, "" for a pronoun.
        extras: allow a time or frequency and negation.
    """
    if subject is None:
        subject, name = _subject(draw, "animal" if draw.chance(0.1) else "person")
    tense = tense or draw.weighted(TENSES)
    parts = _predicate(draw, name)
    time = frequency = None
    negated = False
    if extras:
        what = draw.weighted({"time": 5, "frequency": 2, "none": 4})
        if what == "time":
            time = draw.pick(lexicon.TIMES[tense])
        elif what == "frequency":
            frequency = draw.pick(lexicon.FREQUENCIES)
        definite = all(phrase.definite for phrase in parts["objects"])
        negated = frequency is None and definite and draw.chance(0.25)
    tense = draw.pick(MODALS) if tense == "modal" else tense
    return Clause(subject, tense=tense, time=time, frequency=frequency, negated=negated, **parts)


def _description(draw):
    """A clause with sein (to be): the old house is (not) very beautiful."""
    kind = draw.pick(tuple(kind for kind in OBJECTS if kind != "drink"))
    noun = draw.pick(tuple(OBJECTS[kind].values()))
    determiner = _determiner(draw, {"der": 4, "dieser": 2, "mein": 2, "unser": 1}, noun)
    subject = nominal(noun, determiner, plural=draw.chance(0.3))
    adjective = _adjective(draw, kind)
    predicate = (adjective.bare, adjective.english)
    if draw.chance(0.4):
        predicate = (f"sehr {adjective.bare}", f"very {adjective.english}")
    tense = draw.pick(("present", "past"))
    return Clause(subject, BE, tense, rest=(predicate,), negated=draw.chance(0.25))


def _plain(draw):
    clause = _description(draw) if draw.chance(0.2) else _clause(draw)
    return sentence(german_statement(clause)), sentence(english_statement(clause))


def _fronted(draw):
    """Time first, subject after the verb: Heute liest er ..."""
    while (clause := _clause(draw)).time is None:
        pass
    german, english = front_time(clause)
    return sentence(german), sentence(english)


def _question(draw):
    # Present tense of sein only: other verbs would add a capitalised form each to the vocabulary.
    tense = draw.weighted({"past": 3, "future": 2, "modal": 3})
    clause = _description(draw) if draw.chance(0.2) else _clause(draw, tense)
    clause = replace(clause, negated=False)
    return sentence(german_question(clause), "?"), sentence(english_question(clause), "?")


def _reason(draw):
    """Main clause, then weil or obwohl (because, although); the tenses are independent."""
    german, english = draw.pick((("weil", "because"), ("obwohl", "although")))
    main, other = _clause(draw, extras=draw.chance(0.3)), _clause(draw, extras=draw.chance(0.5))
    return (
        sentence(f"{german_statement(main)}, {german} {german_subordinate(other)}"),
        sentence(f"{english_statement(main)}, {english} {english_statement(other)}"),
    )


def _condition(draw):
    """A clause with wenn, bevor or während (when, before, while), before or after the main one."""
    german, english = draw.pick((("wenn", "when"), ("bevor", "before"), ("während", "while")))
    tense = "present" if german == "wenn" or draw.chance(0.6) else "past"
    main, other = _clause(draw, tense, extras=False), _clause(draw, tense, extras=False)
    german = f"{german} {german_subordinate(other)}"
    english = f"{english} {english_statement(other)}"
    if draw.chance(0.5):
        return (
            sentence(german_statement(main, fronted=f"{german},")),
            sentence(english_statement(main, fronted=f"{english},")),
        )
    return (
        sentence(f"{german_statement(main)}, {german}"),
        sentence(f"{english_statement(main)} {english}"),
    )


def _reported(draw):
    """Reported speech: Er sagt, dass ...; er fragt, ob ..."""
    verb = draw.pick(("sagen", "glauben", "fragen"))
    german, english = ("ob", "whether") if verb == "fragen" else ("dass", "that")
    subject, _ = _subject(draw)
    main = Clause(subject, VERBS[verb], draw.pick(("present", "past")))
    other = _description(draw) if draw.chance(0.2) else _clause(draw)
    return (
        sentence(f"{german_statement(main)}, {german} {german_subordinate(other)}"),
        sentence(f"{english_statement(main)} {english} {english_statement(other)}"),
    )


def _relative(draw):
    """A relative clause that modifies the subject of the main clause."""
    noun = draw.pick(list(lexicon.PERSONS.values()))
    head = nominal(noun, draw.pick(("der", "dieser")), "nom", None, draw.chance(0.3))
    tense = draw.weighted(SUBORDINATE_TENSES)

    def relative(subject):
        return _clause(draw, tense, subject, noun.singular, extras=False)

    subject = with_relative(noun, head, relative)
    main = _clause(draw, subject=subject, name=noun.singular, extras=draw.chance(0.3))
    return sentence(german_statement(main)), sentence(english_statement(main))


SHAPES = {
    _plain: 8,
    _fronted: 6,
    _question: 3,
    _reason: 6,
    _condition: 3,
    _reported: 3,
    _relative: 3,
}


def derive(draw: Draw) -> tuple[str, str]:
    """Draw one (German, English) pair; it may repeat an earlier one."""
    while True:
        german, english = draw.weighted(SHAPES)(draw)
        if all(MIN_LENGTH <= _length(text) <= MAX_LENGTH for text in (german, english)):
            return german, english


def _length(text):
    return text.count(" ") + 1 + sum(text.count(mark) for mark in ",.?")


def generate(seed: int, sizes: Mapping[str, int]) -> dict[str, list[tuple[str, str]]]:
    """Draw disjoint splits of distinct pairs.

    No German and no English sentence occurs twice. The same seed gives the same pairs in every
    version of Python, and the other splits do not depend on the size of `train`.

    Args:
        sizes: split -> number of pairs.
    Returns:
        split -> (German, English) pairs.
    Raises:
        UserError: a size is negative, or larger than the number of sentences of the grammar.
    """
    for split, size in sizes.items():
        if size < 0:
            raise UserError(f"the size of {split} is {size}; give 0 or more sentences")
    draw, german_seen, english_seen, splits = Draw(seed), set(), set(), {}
    for split in sorted(sizes, key=lambda name: (name == "train", name)):
        pairs, repeats = [], 0
        while len(pairs) < sizes[split]:
            german, english = derive(draw)
            if german in german_seen or english in english_seen:
                repeats += 1
                if repeats > MAX_REPEATS:
                    raise UserError(f"the grammar has no {sizes[split]} sentences; ask for fewer")
                continue
            repeats = 0
            german_seen.add(german)
            english_seen.add(english)
            pairs.append((german, english))
        splits[split] = pairs
    return splits


def write_corpus(
    folder: str | os.PathLike,
    seed: int = 1,
    train: int = 40_000,
    valid: int = 500,
    test: int = 500,
) -> None:
    """Write {train,valid,test}.{de,en} to `folder`, one untokenised sentence per line.

    Args:
        train, valid, test: number of pairs.
    """
    for split, pairs in generate(seed, {"train": train, "valid": valid, "test": test}).items():
        for side, language in enumerate(("de", "en")):
            with atomic_text(os.path.join(folder, f"{split}.{language}")) as handle:
                handle.writelines(pair[side] + "\n" for pair in pairs)
