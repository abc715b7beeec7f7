"""German and English sentences from words: agreement, word order, the verb's bracket; no chance."""

from dataclasses import dataclass, replace

from difformer_plugin.data.synthetic.lexicon import Verb

# Endings by case, then gender or plural. Determiners other than der take these; an ein-word
# drops the ending in three cells, and it is there that the adjective takes it over.
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
# Where the weak adjective ends in -e; everywhere else in -en.
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

# Finite forms in the third person singular and in the plural.
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
    plural: bool  # as the verb sees it
    definite: bool = True


PRONOUNS = (Nominal("er", "he", False), Nominal("wir", "we", True))


def nominal(noun, determiner, case="nom", adjective=None, plural=False):
    """Determiner, adjective or none, and noun, agreeing in case, gender and number."""
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


def prepositional(german, english, phrase):
    """A preposition and its noun phrase, contracted where German does (im, zur)."""
    text = f"{german} {phrase.german}"
    for long, short in CONTRACTIONS.items():
        if text.startswith(long + " "):
            text = short + text[len(long) :]
    return text, f"{english} {phrase.english}"


@dataclass(frozen=True)
class Clause:
    """A clause before it gets a word order. Pairs are (German, English)."""

    subject: Nominal
    verb: Verb
    tense: str = "present"  # or past, future, the name of a modal
    objects: tuple = ()  # Nominals, the dative first
    rest: tuple = ()  # pairs that follow the negation: places, directions, predicates
    time: tuple | None = None
    frequency: tuple | None = None
    negated: bool = False

    def german_verb(self):
        """The finite verb and what closes the bracket (prefix, participle, infinitive or "")."""
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

    def german_middle(self):
        """What stands between the two halves of the verb."""
        parts = [self.time[0]] if self.time else []
        parts += [self.frequency[0]] if self.frequency else []
        parts += [phrase.german for phrase in self.objects]
        parts += ["nicht"] if self.negated else []
        return parts + [german for german, _ in self.rest]

    def english_verb(self, support):
        """Auxiliary ("" if there is none) and main verb; `support` asks for do where needed."""
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

    def english_rest(self):
        """Objects, what follows them, and the time."""
        parts = [phrase.english for phrase in self.objects]
        parts += [english for _, english in self.rest]
        return parts + ([self.time[1]] if self.time else [])


def german_statement(clause, fronted=""):
    """Verb second: what is fronted, or else the subject, stands before it."""
    finite, closing = clause.german_verb()
    start = (fronted, finite, clause.subject.german)
    if not fronted:
        start = (clause.subject.german, finite)
    return _join(*start, *clause.german_middle(), closing)


def german_subordinate(clause):
    """Verb last: ... weil die Frau die Tür aufmacht / aufgemacht hat."""
    finite, closing = clause.german_verb()
    if clause.tense == "present":
        return _join(clause.subject.german, *clause.german_middle(), closing + finite)
    return _join(clause.subject.german, *clause.german_middle(), closing, finite)


def german_question(clause):
    """Verb first."""
    finite, closing = clause.german_verb()
    return _join(finite, clause.subject.german, *clause.german_middle(), closing)


def english_statement(clause, fronted=""):
    """Subject, verb, objects, time; what is fronted goes before the subject."""
    auxiliary, main = clause.english_verb(support=clause.negated)
    negation = "not" if clause.negated else ""
    if negation and auxiliary == "can":
        auxiliary, negation = "cannot", ""
    frequency = clause.frequency[1] if clause.frequency else ""
    start = (fronted, clause.subject.english, auxiliary, negation, frequency, main)
    return _join(*start, *clause.english_rest())


def english_question(clause):
    """Auxiliary first, do where there is no other."""
    auxiliary, main = clause.english_verb(support=True)
    frequency = clause.frequency[1] if clause.frequency else ""
    return _join(auxiliary, clause.subject.english, frequency, main, *clause.english_rest())


def front_time(clause):
    """The clause in both languages with its time first: Heute liest er ... / Today he reads ..."""
    german, english = clause.time
    bare = replace(clause, time=None)
    return german_statement(bare, german), english_statement(bare, english)


def with_relative(noun, head, clause_without_subject):
    """`head` (a nominative Nominal of `noun`) with a relative clause of which it is the subject."""
    row = "pl" if head.plural else noun.gender
    clause = clause_without_subject(Nominal(DEFINITE["nom"][row], "who", head.plural))
    return Nominal(
        f"{head.german}, {german_subordinate(clause)},",
        f"{head.english} {english_statement(clause)}",
        head.plural,
    )


def sentence(text, mark="."):
    """Capital at the start, mark at the end."""
    return text[0].upper() + text[1:] + mark


def _join(*parts):
    return " ".join(part for part in parts if part)
