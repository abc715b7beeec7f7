"""Lexicon of the synthetic German-English corpus, with the forms needed for agreement."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; `plural` is empty for mass nouns (milk)."""

    singular: str
    oblique: str  # accusative and dative singular; differs for weak masculines (den Jungen)
    gender: str  # m, f or n
    plural: str
    english: str
    english_plural: str

    @property
    def dative_plural(self) -> str:
        """The plural with the -n of the dative, unless it ends in -n or -s."""
        return self.plural if self.plural[-1] in "ns" else self.plural + "n"


@dataclass(frozen=True)
class Adjective:
    """An adjective: its uninflected form, the stem that takes endings, and its translation."""

    bare: str
    stem: str
    english: str


@dataclass(frozen=True)
class Verb:
    """A verb with its forms in both languages."""

    prefix: str  # the separable prefix, or ""
    infinitive: str  # without the prefix; also the present plural
    third: str  # third person singular, present
    participle: str  # with the prefix
    auxiliary: str  # of the perfect: haben or sein
    english: str
    english_third: str
    english_past: str


def _nouns(text):
    nouns = {}
    for line in text.strip().splitlines():
        german, gender, plural, english, english_plural = line.split()
        singular, _, oblique = german.partition("/")
        plural, english_plural = plural.strip("-"), english_plural.strip("-")
        nouns[singular] = Noun(
            singular, oblique or singular, gender, plural, english, english_plural
        )
    return nouns


def _verbs(text):
    verbs = {}
    for line in text.strip().splitlines():
        german, english = line.split(" : ")
        infinitive, third, participle, *auxiliary = german.split()
        prefix, _, stem = infinitive.rpartition("|")
        verbs[prefix + stem] = Verb(
            prefix,
            stem,
            third,
            participle,
            "sein" if auxiliary else "haben",
            *(form.replace("+", " ") for form in english.split()),
        )
    return verbs


def _adjectives(text):
    adjectives = {}
    for pair in text.split(","):
        german, english = pair.split()
        bare, _, stem = german.partition("/")
        adjectives[bare] = Adjective(bare, stem or bare, english)
    return adjectives


def _words(text):
    return tuple(text.split())


def _table(text):
    """Parse lines of the form "keys : values" to a dict from each key to the values."""
    rows = [line.split(" : ") for line in text.strip().splitlines()]
    return {key: _words(values) for keys, values in rows for key in keys.split()}


# singular[/oblique] gender plural english english-plural
PERSONS = _nouns("""
Mann m Männer man men
Frau f Frauen woman women
Kind n Kinder child children
Mädchen n Mädchen girl girls
Junge/Jungen m Jungen boy boys
Lehrer m Lehrer teacher teachers
Arzt m Ärzte doctor doctors
Nachbar/Nachbarn m Nachbarn neighbour neighbours
Freund m Freunde friend friends
Mutter f Mütter mother mothers
Vater m Väter father fathers
Schwester f Schwestern sister sisters
Bruder m Brüder brother brothers
Tante f Tanten aunt aunts
Student/Studenten m Studenten student students
""")
ANIMALS = _nouns("""
Hund m Hunde dog dogs
Katze f Katzen cat cats
Pferd n Pferde horse horses
""")
TEXTS = _nouns("""
Buch n Bücher book books
Brief m Briefe letter letters
Zeitung f Zeitungen newspaper newspapers
Geschichte f Geschichten story stories
Gedicht n Gedichte poem poems
""")
FOOD = _nouns("""
Apfel m Äpfel apple apples
Birne f Birnen pear pears
Ei n Eier egg eggs
Kuchen m Kuchen cake cakes
""")
DRINKS = _nouns("""
Wasser n - water -
Milch f - milk -
Kaffee m - coffee -
""")
CLOTHES = _nouns("""
Mantel m Mäntel coat coats
Jacke f Jacken jacket jackets
Hemd n Hemden shirt shirts
Hut m Hüte hat hats
""")
THINGS = _nouns("""
Lampe f Lampen lamp lamps
Uhr f Uhren clock clocks
Fahrrad n Fahrräder bicycle bicycles
Schlüssel m Schlüssel key keys
Bild n Bilder picture pictures
""")
OPENABLES = _nouns("""
Tür f Türen door doors
Fenster n Fenster window windows
Schrank m Schränke cupboard cupboards
Koffer m Koffer suitcase suitcases
""")
ROOMS = _nouns("""
Küche f Küchen kitchen kitchens
Zimmer n Zimmer room rooms
Haus n Häuser house houses
""")
# Places, by the German preposition of location.
PLACES_IN = _nouns("""
Küche f Küchen kitchen kitchens
Haus n Häuser house houses
Garten m Gärten garden gardens
Schule f Schulen school schools
Stadt f Städte city cities
Wald m Wälder forest forests
""")
PLACES_AN = _nouns("""
Bahnhof m Bahnhöfe station stations
See m Seen lake lakes
Ufer n Ufer shore shores
""")
PLACES_AUF = _nouns("""
Straße f Straßen street streets
Brücke f Brücken bridge bridges
Berg m Berge mountain mountains
Feld n Felder field fields
""")

OBJECTS = {
    "text": TEXTS,
    "person": PERSONS,
    "animal": ANIMALS,
    "food": FOOD,
    "drink": DRINKS,
    "clothes": CLOTHES,
    "thing": THINGS,
    "openable": OPENABLES,
    "room": ROOMS,
}

ADJECTIVES = _adjectives(
    "alt old, jung young, klein small, groß big, müde/müd tired, krank sick, freundlich friendly,"
    "neu new, schön beautiful, teuer/teur expensive, rot red, blau blue, schwer heavy,"
    "frisch fresh, kalt cold, gut good, interessant interesting, dunkel/dunkl dark"
)
ADJECTIVES_OF = _table("""
person : alt jung klein groß müde krank freundlich
animal : alt jung klein groß müde krank
text : alt neu schön gut interessant teuer
food : frisch gut klein groß
drink : frisch kalt gut
clothes : neu schön teuer rot blau dunkel
thing : alt neu schön teuer rot blau schwer
openable : alt neu klein groß schwer
room : alt klein groß schön dunkel
place : alt klein groß schön dunkel
""")

# [prefix|]infinitive third participle [sein] : english third past ("+" for a space)
VERBS = _verbs("""
lesen liest gelesen : read reads read
schreiben schreibt geschrieben : write writes wrote
vor|lesen liest vorgelesen : read+aloud reads+aloud read+aloud
besuchen besucht besucht : visit visits visited
begrüßen begrüßt begrüßt : greet greets greeted
umarmen umarmt umarmt : hug hugs hugged
an|rufen ruft angerufen : call calls called
ein|laden lädt eingeladen : invite invites invited
ab|holen holt abgeholt : pick+up picks+up picked+up
sehen sieht gesehen : see sees saw
suchen sucht gesucht : look+for looks+for looked+for
essen isst gegessen : eat eats ate
auf|essen isst aufgegessen : eat+up eats+up ate+up
trinken trinkt getrunken : drink drinks drank
aus|trinken trinkt ausgetrunken : drink+up drinks+up drank+up
tragen trägt getragen : wear wears wore
an|ziehen zieht angezogen : put+on puts+on put+on
aus|ziehen zieht ausgezogen : take+off takes+off took+off
waschen wäscht gewaschen : wash washes washed
kaufen kauft gekauft : buy buys bought
verkaufen verkauft verkauft : sell sells sold
finden findet gefunden : find finds found
verlieren verliert verloren : lose loses lost
vergessen vergisst vergessen : forget forgets forgot
ein|packen packt eingepackt : pack packs packed
weg|werfen wirft weggeworfen : throw+away throws+away threw+away
zurück|bringen bringt zurückgebracht : bring+back brings+back brought+back
auf|machen macht aufgemacht : open opens opened
zu|machen macht zugemacht : close closes closed
auf|räumen räumt aufgeräumt : tidy+up tidies+up tidied+up
schlafen schläft geschlafen : sleep sleeps slept
arbeiten arbeitet gearbeitet : work works worked
warten wartet gewartet : wait waits waited
singen singt gesungen : sing sings sang
tanzen tanzt getanzt : dance dances danced
spielen spielt gespielt : play plays played
ein|schlafen schläft eingeschlafen sein : fall+asleep falls+asleep fell+asleep
an|kommen kommt angekommen sein : arrive arrives arrived
gehen geht gegangen sein : go goes went
laufen läuft gelaufen sein : run runs ran
helfen hilft geholfen : help helps helped
danken dankt gedankt : thank thanks thanked
folgen folgt gefolgt sein : follow follows followed
zu|hören hört zugehört : listen+to listens+to listened+to
geben gibt gegeben : give gives gave
zeigen zeigt gezeigt : show shows showed
schicken schickt geschickt : send sends sent
sagen sagt gesagt : say says said
glauben glaubt geglaubt : believe believes believed
fragen fragt gefragt : ask asks asked
""")

# Kinds of objects that each transitive verb takes.
TRANSITIVE = _table("""
lesen schreiben vorlesen : text
besuchen begrüßen : person
umarmen : person animal
anrufen einladen abholen : person
sehen suchen : text person animal food drink clothes thing openable room
essen aufessen : food
trinken austrinken : drink
tragen anziehen ausziehen : clothes
waschen : clothes animal
kaufen verkaufen : text food clothes thing
finden verlieren vergessen einpacken wegwerfen zurückbringen : text clothes thing
aufmachen zumachen : openable
aufräumen : room
""")
DATIVE = ("helfen", "danken", "folgen", "zuhören")
DITRANSITIVE = ("geben", "zeigen", "schicken")
GIVEN = ("text", "clothes", "thing")  # kinds of things that are given, shown and sent
INTRANSITIVE = _words("schlafen arbeiten warten singen tanzen spielen einschlafen ankommen")
MOTION = ("gehen", "laufen")

# Verbs that take animals as subjects.
ANIMAL_VERBS = _words(
    "essen aufessen trinken sehen suchen finden schlafen warten spielen"
    " einschlafen ankommen gehen laufen folgen"
)
# A possessive would change the meaning of these: mein Mann is my husband.
NOT_OWNED = ("Mann", "Frau", "Junge", "Mädchen")

# Prepositions: (German, English, case, nouns).
PLACES = (
    ("in", "in", "dat", PLACES_IN),
    ("an", "at", "dat", PLACES_AN),
    ("auf", "on", "dat", PLACES_AUF),
    ("vor", "in front of", "dat", PLACES_IN),
    ("hinter", "behind", "dat", PLACES_AN),
    ("neben", "next to", "dat", PLACES_AUF),
)
DIRECTIONS = (("in", "into", "acc", PLACES_IN), ("zu", "to", "dat", PLACES_AN))
COMPANY = (("mit", "with", "dat", PERSONS), ("ohne", "without", "acc", PERSONS))

# Adverbials of time: (German, English), by tense.
TIMES = {
    "present": (
        ("heute", "today"),
        ("jetzt", "now"),
        ("jeden Tag", "every day"),
        ("am Abend", "in the evening"),
    ),
    "past": (
        ("heute", "today"),
        ("gestern", "yesterday"),
        ("letzte Woche", "last week"),
        ("am Abend", "in the evening"),
    ),
    "future": (("morgen", "tomorrow"), ("bald", "soon"), ("nächste Woche", "next week")),
    "modal": (("heute", "today"), ("morgen", "tomorrow"), ("am Abend", "in the evening")),
}
FREQUENCIES = (("oft", "often"), ("immer", "always"), ("nie", "never"))
