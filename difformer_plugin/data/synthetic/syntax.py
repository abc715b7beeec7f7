"""German and English syntax: agreement, word order, verb brackets. Nothing here is random."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from difformer_plugin.data.synthetic.lexicon import Adjective, Noun, Verb

# Strong endings by case, then by gender or plural. All determiners but der take them. An ein-word
# has no ending in the three cells of BARE_EIN; there the adjective takes the strong ending.
STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "pl": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "pl": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "pl": "en"},
}
DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das", "pl": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "pl": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "pl": "den"},
}
BARE_EIN = {("nom", "m"), ("nom", "n"), ("acc", "n")}
# Where weak adjectives end in -e; everywhere else they end in -en.
WEAK_E = {("nom", "m"), ("nom", "f"), ("nom", "n"), ("acc", "f"), ("acc", "n")}

# determiner -> (kind, German stem, English singular, English plural)
DETERMINERS = {
    "der": ("definite", "", "the", "the"),
    "dieser": ("der-word", "dies", "this", "these"),
    "jeder": ("der-word", "jed", "every", None),
    "ein": ("ein-word", "ein", "a", None),
    "kein": ("ein-word", "kein", "no", "no"),
    "mein": ("ein-word", "mein", "my", "my"),
    "sein": ("ein-word", "sein", "his", "his"),
    "unser": ("ein-word", "unser", "our", "our"),
    "viele": ("quantifier", "viel", None, "many"),
    "einige": ("quantifier", "einig", None, "some"),
    "zwei": ("numeral", "zwei", None, "two"),
    "drei": ("numeral", "drei", None, "three"),
}
CONTRACTIONS = {
    "in dem": "im",
    "in das": "ins",
    "an dem": "am",
    "zu dem": "zum",
    "zu der": "zur",
}

# Finite forms: third person singular, plural.
FINITE = {
    "haben": ("hat", "haben"),
    "sein": ("ist", "sind"),
    "werden": ("wird", "werden"),
    "können": ("kann", "können"),
    "müssen": ("muss", "müssen"),
    "wollen": ("will", "wollen"),
    "sollen": ("soll", "sollen"),
    "dürfen": ("darf", "dürfen"),
}
MODALS = ("können", "müssen", "wollen", "sollen", "dürfen")
TO_BE = {"present": ("is", "are"), "past": ("was", "were")}
BE = Verb("", "sein", "ist", "gewesen", "sein", "be", "is", "was")


@dataclass(frozen=True)
class Nominal:
    """A noun phrase in both languages."""

    german: str
    english: str
    plural: bool  # number that the verb agrees with
    definite: bool = True


PRONOUNS = (Nominal("er", "he", False), Nominal("wir", "we", True))


def nominal(
    noun: Noun,
    determiner: str,
    case: str = "nom",
    adjective: Adjective | None = None,
    plural: bool = False,
) -> Nominal:
    """A noun phrase whose determiner, adjective (if any) and noun agree.

    Args:
        determiner: a key of DETERMINERS.
        case: "nom", "acc" or "dat".
    """
    kind, stem, english_singular, english_plural = DETERMINERS[determiner]
    row = "pl" if plural else noun.gender
    if kind == "definite":
        german = [DEFINITE[case][row]]
    elif kind == "numeral" or (kind == "ein-word" and (case, row) in BARE_EIN):
        german = [stem]
    else:
        german = [stem + STRONG[case][row]]
    english = [english_plural if plural else english_singular]
    if adjective is not None:
        strong = kind in ("quantifier", "numeral") or german[0] == stem
        weak = "e" if (case, row) in WEAK_E else "en"
        german.append(adjective.stem + (STRONG[case][row] if strong else weak))
        english.append(adjective.english)
    if plural:
        german.append(noun.dative_plural if case == "dat" else noun.plural)
    else:
        german.append(noun.singular if case == "nom" else noun.oblique)
    english.append(noun.english_plural if plural else noun.english)
    if english[0] == "a" and english[1][0] in "aeiou":
        english[0] = "an"
    definite = kind == "definite" or determiner in ("dieser", "mein", "sein", "unser")
    return Nominal(" ".join(german), " ".join(english), plural, definite)


def prepositional(german: str, english: str, phrase: Nominal) -> tuple[str, str]:
    """A prepositional phrase as (German, English), contracted where German requires it (im, zur).

    Args:
        german, english: the preposition.
    """
    text = f"{german} {phrase.german}"
    for long, short in CONTRACTIONS.items():
        if text.startswith(long + " "):
            text = short + text[len(long) :]
    return text, f"{english} {phrase.english}"


@dataclass(frozen=True)
class Clause:
    """A clause without word order. Pairs are (German, English)."""

    subject: Nominal
    verb: Verb
    tense: str = "present"  # or past, future, or an element of MODALS
    objects: tuple = ()  # Nominals, the dative object first
    rest: tuple = ()  # pairs after the negation: places, directions, predicates
    time: tuple | None = None
    frequency: tuple | None = None
    negated: bool = False

    def german_verb(self) -> tuple[str, str]:
        """The finite verb, and the end of the bracket: prefix, participle, infinitive or ""."""
        verb, plural = self.verb, self.subject.plural
        infinitive = verb.prefix + verb.infinitive
        if self.tense == "present":
            if verb is BE:
                return FINITE["sein"][plural], ""
            return (verb.infinitive if plural else verb.third), verb.prefix
        if self.tense == "past":
            if verb is BE:
                return ("waren" if plural else "war"), ""
            return FINITE[verb.auxiliary][plural], verb.participle
        return FINITE["werden" if self.tense == "future" else self.tense][plural], infinitive

    def german_middle(self) -> list[str]:
        """The middle field: everything between the two parts of the verb, except the subject."""
        parts = [self.time[0]] if self.time else []
        parts += [self.frequency[0]] if self.frequency else []
        parts += [phrase.german for phrase in self.objects]
        parts += ["nicht"] if self.negated else []
        return parts + [german for german, _ in self.rest]

    def english_verb(self, support: bool) -> tuple[str, str]:
        """Auxiliary ("" if there is none) and main verb.

        Args:
            support: add do, does or did if there is no other auxiliary.
        """
        verb, plural = self.verb, self.subject.plural
        if self.tense in ("können", "sollen", "future"):
            return {"können": "can", "sollen": "should", "future": "will"}[self.tense], verb.english
        if self.tense == "dürfen":
            return TO_BE["present"][plural], f"allowed to {verb.english}"
        if verb is BE:
            return TO_BE[self.tense][plural], ""
        if self.tense == "past":
            return ("did", verb.english) if support else ("", verb.english_past)
        base, third, tail = {
            "present": (verb.english, verb.english_third, ""),
            "müssen": ("have", "has", f" to {verb.english}"),
            "wollen": ("want", "wants", f" to {verb.english}"),
        }[self.tense]
        if support:
            return "do" if plural else "does", base + tail
        return "", (base if plural else third) + tail

    def english_rest(self) -> list[str]:
        """Everything after the verb: objects, `rest`, and the time."""
        parts = [phrase.english for phrase in self.objects]
        parts += [english for _, english in self.rest]
        return parts + ([self.time[1]] if self.time else [])


def german_statement(clause: Clause, fronted: str = "") -> str:
    """Verb-second order; the fronted constituent, or else the subject, precedes the verb."""
    finite, closing = clause.german_verb()
    subject = clause.subject.german
    start = [fronted, finite, subject] if fronted else [subject, finite]
    return _join(*start, *clause.german_middle(), closing)


def german_subordinate(clause: Clause) -> str:
    """Verb-final order: ... weil die Frau die Tür aufmacht / aufgemacht hat."""
    finite, closing = clause.german_verb()
    if clause.tense == "present":
        return _join(clause.subject.german, *clause.german_middle(), closing + finite)
    return _join(clause.subject.german, *clause.german_middle(), closing, finite)


def german_question(clause: Clause) -> str:
    """Verb-first order."""
    finite, closing = clause.german_verb()
    return _join(finite, clause.subject.german, *clause.german_middle(), closing)


def english_statement(clause: Clause, fronted: str = "") -> str:
    """Subject, verb, objects, time; a fronted constituent precedes the subject."""
    auxiliary, main = clause.english_verb(support=clause.negated)
    negation = "not" if clause.negated else ""
    if negation and auxiliary == "can":
        auxiliary, negation = "cannot", ""
    frequency = clause.frequency[1] if clause.frequency else ""
    start = (fronted, clause.subject.english, auxiliary, negation, frequency, main)
    return _join(*start, *clause.english_rest())


def english_question(clause: Clause) -> str:
    """Auxiliary first; do if there is no other."""
    auxiliary, main = clause.english_verb(support=True)
    frequency = clause.frequency[1] if clause.frequency else ""
    return _join(auxiliary, clause.subject.english, frequency, main, *clause.english_rest())


def front_time(clause: Clause) -> tuple[str, str]:
    """The clause with its time first: Heute liest er ... / Today he reads ..."""
    german, english = clause.time
    bare = replace(clause, time=None)
    return german_statement(bare, german), english_statement(bare, english)


def with_relative(
    noun: Noun, head: Nominal, clause_without_subject: Callable[[Nominal], Clause]
) -> Nominal:
    """Add a relative clause to a noun phrase.

    Args:
        noun: the noun of `head`.
        head: the noun phrase, in the nominative.
        clause_without_subject: function from the relative pronoun, its subject, to the clause.
    """
    row = "pl" if head.plural else noun.gender
    clause = clause_without_subject(Nominal(DEFINITE["nom"][row], "who", head.plural))
    return Nominal(
        f"{head.german}, {german_subordinate(clause)},",
        f"{head.english} {english_statement(clause)}",
        head.plural,
    )


def sentence(text: str, mark: str = ".") -> str:
    """Capitalise the first letter and add the punctuation mark."""
    return text[0].upper() + text[1:] + mark


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
