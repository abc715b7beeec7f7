"""Agreement and word order, compared with sentences written by hand."""

import pytest

from difformer_plugin.data.synthetic.lexicon import ADJECTIVES, OBJECTS, PERSONS, PLACES_IN, VERBS
from difformer_plugin.data.synthetic.syntax import (
    BE,
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

TODAY, YESTERDAY = ("heute", "today"), ("gestern", "yesterday")
NOUNS = {name: noun for nouns in OBJECTS.values() for name, noun in nouns.items()}


def np(determiner, noun, case="nom", adjective=None, plural=False):
    return nominal(NOUNS[noun], determiner, case, adjective and ADJECTIVES[adjective], plural)


def both(clause):
    return sentence(german_statement(clause)), sentence(english_statement(clause))


GOLD = [
    (
        Clause(
            np("der", "Mann", adjective="alt"),
            VERBS["lesen"],
            objects=(np("ein", "Buch", "acc"),),
            time=TODAY,
        ),
        "Der alte Mann liest heute ein Buch.",
        "The old man reads a book today.",
    ),
    (
        Clause(
            np("ein", "Mann", adjective="alt"),
            VERBS["essen"],
            "past",
            (np("ein", "Apfel", "acc", "frisch"),),
            time=YESTERDAY,
        ),
        "Ein alter Mann hat gestern einen frischen Apfel gegessen.",
        "An old man ate a fresh apple yesterday.",
    ),
    (
        Clause(np("der", "Frau"), VERBS["aufmachen"], objects=(np("der", "Tür", "acc"),)),
        "Die Frau macht die Tür auf.",
        "The woman opens the door.",
    ),
    (
        Clause(
            np("der", "Frau"), VERBS["aufmachen"], "past", (np("der", "Tür", "acc"),), negated=True
        ),
        "Die Frau hat die Tür nicht aufgemacht.",
        "The woman did not open the door.",
    ),
    (
        Clause(np("der", "Junge"), VERBS["kaufen"], "wollen", (np("der", "Kuchen", "acc"),)),
        "Der Junge will den Kuchen kaufen.",
        "The boy wants to buy the cake.",
    ),
    (
        Clause(
            np("mein", "Kind", adjective="klein"),
            VERBS["helfen"],
            "können",
            (np("der", "Junge", "dat", "krank"),),
            negated=True,
        ),
        "Mein kleines Kind kann dem kranken Jungen nicht helfen.",
        "My small child cannot help the sick boy.",
    ),
    (
        Clause(
            np("viele", "Kind", "nom", "klein", True),
            VERBS["geben"],
            objects=(np("der", "Mann", "dat", None, True), np("zwei", "Ei", "acc", None, True)),
        ),
        "Viele kleine Kinder geben den Männern zwei Eier.",
        "Many small children give the men two eggs.",
    ),
    (
        Clause(
            PRONOUNS[1],
            VERBS["ankommen"],
            "past",
            rest=(prepositional("in", "in", nominal(PLACES_IN["Stadt"], "der", "dat")),),
        ),
        "Wir sind in der Stadt angekommen.",
        "We arrived in the city.",
    ),
    (
        Clause(
            PRONOUNS[0],
            VERBS["gehen"],
            "müssen",
            rest=(prepositional("in", "into", nominal(PLACES_IN["Haus"], "der", "acc")),),
            frequency=("oft", "often"),
        ),
        "Er muss oft ins Haus gehen.",
        "He often has to go into the house.",
    ),
    (
        Clause(
            np("dieser", "Uhr", plural=True),
            BE,
            rest=(("sehr teuer", "very expensive"),),
            negated=True,
        ),
        "Diese Uhren sind nicht sehr teuer.",
        "These clocks are not very expensive.",
    ),
    (
        Clause(
            np("der", "Lehrer", plural=True),
            VERBS["aufessen"],
            "dürfen",
            (np("kein", "Apfel", "acc"),),
        ),
        "Die Lehrer dürfen keinen Apfel aufessen.",
        "The teachers are allowed to eat up no apple.",
    ),
    (
        Clause(
            np("jeder", "Mutter"),
            VERBS["folgen"],
            "future",
            (np("drei", "Nachbar", "dat", "müde", True),),
        ),
        "Jede Mutter wird drei müden Nachbarn folgen.",
        "Every mother will follow three tired neighbours.",
    ),
]


@pytest.mark.parametrize("clause, german, english", GOLD, ids=[gold[1] for gold in GOLD])
def test_gold_statements(clause, german, english):
    assert both(clause) == (german, english)


def test_gold_word_orders():
    clause = Clause(
        np("der", "Frau"), VERBS["aufmachen"], objects=(np("der", "Tür", "acc"),), time=TODAY
    )
    past = Clause(np("der", "Frau"), VERBS["einschlafen"], "past")
    assert german_subordinate(clause) == "die Frau heute die Tür aufmacht"
    assert german_subordinate(past) == "die Frau eingeschlafen ist"
    assert front_time(clause) == (
        "heute macht die Frau die Tür auf",
        "today the woman opens the door",
    )
    assert german_question(past) == "ist die Frau eingeschlafen"
    assert english_question(past) == "did the woman fall asleep"
    assert english_question(clause) == "does the woman open the door today"


def test_gold_relative_clause():
    def reading(subject):
        return Clause(subject, VERBS["lesen"], "past", (np("ein", "Brief", "acc"),))

    subject = with_relative(PERSONS["Mädchen"], np("der", "Mädchen"), reading)
    assert both(Clause(subject, VERBS["schlafen"])) == (
        "Das Mädchen, das einen Brief gelesen hat, schläft.",
        "The girl who read a letter sleeps.",
    )
