"""Finite forms of common English verbs, for do-support: "fell" -> past of "fall", "holds" -> present of "hold".

A closed list on purpose: a verb that is not here makes the negation refuse the question instead of guessing a stem.
"""

from __future__ import annotations

# lemma: simple past, past participle
_IRREGULAR = """
beat beat beaten;
become became become; begin began begun; bend bent bent; bite bit bitten; blow blew blown;
break broke broken; bring brought brought; build built built; buy bought bought; catch caught caught;
choose chose chosen; come came come; cut cut cut; dig dug dug; do did done; draw drew drawn;
drink drank drunk; drive drove driven; eat ate eaten; fall fell fallen; feed fed fed; feel felt felt;
fight fought fought; find found found; fly flew flown; get got got; give gave given; go went gone; grow grew grown;
hang hung hung; have had had; hear heard heard; hide hid hidden; hit hit hit; hold held held; hurt hurt hurt;
keep kept kept; kneel knelt knelt; know knew known; lay laid laid; lead led led; leave left left; let let let;
lie lay lain; lose lost lost; make made made; meet met met; pay paid paid; put put put; read read read;
ride rode ridden; ring rang rung; rise rose risen; run ran run; say said said; see saw seen; sell sold sold;
send sent sent; set set set; shake shook shaken; shoot shot shot; show showed shown; shut shut shut; sing sang sung;
sit sat sat; sleep slept slept; slide slid slid; speak spoke spoken; spend spent spent; spin spun spun;
stand stood stood; steal stole stolen; stick stuck stuck; sweep swept swept; swim swam swum; swing swung swung;
take took taken; teach taught taught; tear tore torn; tell told told; think thought thought; throw threw thrown;
understand understood understood; wake woke woken; wear wore worn; win won won; write wrote written
"""

_REGULAR = """
accelerate add adjust allow answer appear approach arrange arrive ask attach attack attempt bark bathe bounce
bow breathe brush bump carry cause change chase check cheer chew circle clap clean clear climb close collect collide
comb compete connect contain continue control cook copy cough count cover crawl crash cross cry cycle dance
decide decorate deliver describe disappear dive dress drop dry empty end enter examine exit explain explore extend
face fail fill finish fix flip float fold follow gather gesture glide grab greet guide happen help hug hop ignore
indicate insert involve jog join juggle jump kick kiss knock land laugh lean learn lick lift light listen load lock
look lower mark massage measure mix mop move need nod notice occur offer open pack paint park pass pat paddle pause
peel perform pet pick place plant play point pop pose pour practice prepare press prevent produce protect pull pump
punch push raise rake reach react receive refuse relax release remain remove repair repeat reply rest return reveal
roll rotate row rub rush sail score scratch scream seem
serve shave shout sign sip skate ski skip slap slice slip smash
smell smile smoke sneeze sniff spill splash spray squat squeeze stack stare start stay step stir stop stretch stroke
stumble support surf surprise switch talk tap taste tidy tie toss touch tour train travel trim trip try tumble turn
twist type unwrap use visit wait walk want warm wash watch water wave weigh whisper whistle wipe work wrap yawn yell
"""

# final consonant doubled before -ed
_DOUBLED = """
clap drop flip grab hug hop jog mop nod occur pat pet plan pop rub sip skip slap slip step stop tap trim trip unwrap
wrap
"""


def _third_person(lemma: str) -> str:
    if lemma == "have":
        return "has"
    if lemma.endswith(("s", "sh", "ch", "x", "z", "o")):
        return lemma + "es"
    if lemma.endswith("y") and lemma[-2] not in "aeiou":
        return lemma[:-1] + "ies"
    return lemma + "s"


def _regular_past(lemma: str) -> str:
    if lemma.endswith("e"):
        return lemma + "d"
    if lemma.endswith("y") and lemma[-2] not in "aeiou":
        return lemma[:-1] + "ied"
    return lemma + lemma[-1] * (lemma in _DOUBLED.split()) + "ed"


_FORMS = {lemma: (_regular_past(lemma),) * 2 for lemma in _REGULAR.split()}
_FORMS |= {words[0]: (words[1], words[2]) for words in (entry.split() for entry in _IRREGULAR.split(";"))}

BASE = frozenset(_FORMS)
# "lay" is the past of "lie" before it is a base form, and "cut" after a singular subject can only be past
PAST = {past: lemma for lemma, (past, _) in _FORMS.items()}
PRESENT = {_third_person(lemma): lemma for lemma in _FORMS}
PARTICIPLE = frozenset(participle for _, participle in _FORMS.values())
