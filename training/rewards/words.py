"""Word lists of the answer guard: what may stand beside an answer because it names nothing, and what takes it
back."""

from __future__ import annotations


def _of(text: str) -> frozenset[str]:
    return frozenset(text.split())


YES_NO = ("yes", "no")
ARTICLES = _of(
    """
    a an the
    """
)
# Words that hold a sentence together. They name no candidate, whatever they join.
FUNCTION = ARTICLES | _of(
    """
    of in on at by for to from with as is was are were be been being it its itself this that these
    those he she they his her their him them i we you my our your who whom whose which what when
    where there here and or then so thus hence therefore also both plus too into over under between
    after before during about around than more most very only just one same such do does did has
    have had will would can could may might must shall should called named known name according per
    via while since because if how why well answer answers final correct short alternatively either
    maybe perhaps possibly probably likely believe think suppose vs versus alias aka ie eg
    """
)
# How an answer points at its source.
CITING = _of(
    """
    document documents doc docs passage passages context text texts source sources article articles
    paragraph paragraphs section sections excerpt excerpts snippet snippets reference references
    evidence information info provided given stated states state says said mentioned mentions
    described describes indicated indicates confirmed confirms confirm supported supports found
    based shown shows show noted notes cited cites see cf ref refs id ids relevant above retrieved
    listed explicitly directly clearly question
    """
)
# Words that take an answer back, or say that there is none.
NEGATION = _of(
    """
    not no never neither nor none nobody nothing cannot cant isnt wasnt arent werent dont doesnt
    didnt wont hasnt havent hadnt couldnt wouldnt shouldnt wrong incorrect incorrectly false untrue
    mistaken except excluding without unlikely instead rather unknown unsure unclear unless but
    opposite contrary hardly nope nah non anything everything other else
    """
)
# What says yes or no in other words; beside the opposite one it hedges.
YES_LIKE = _of(
    """
    yes yeah yep true correct right affirmative indeed
    """
)
NO_LIKE = _of(
    """
    no nope nah false incorrect wrong negative untrue
    """
)
NUMBERS = _of(
    """
    zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion first second third fourth fifth sixth seventh eighth ninth
    tenth
    """
)
# Places that may follow a place ("Paris, France"). None may follow another of them, but for a state its
# country.
STATES = _of(
    """
    alabama alaska arizona arkansas california colorado connecticut delaware florida georgia hawaii
    idaho illinois indiana iowa kansas kentucky louisiana maine maryland massachusetts michigan
    minnesota mississippi missouri montana nebraska nevada new_hampshire new_jersey new_mexico
    new_york north_carolina north_dakota ohio oklahoma oregon pennsylvania rhode_island
    south_carolina south_dakota tennessee texas utah vermont virginia washington west_virginia
    wisconsin wyoming new_york_city dc ontario quebec alberta british_columbia manitoba nova_scotia
    new_south_wales queensland victoria tasmania bavaria
    """
)
UNIONS = _of(
    """
    united_states united_states_of_america us usa america united_kingdom uk great_britain canada
    australia germany
    """
)
COUNTRIES = UNIONS | _of(
    """
    england scotland wales ireland northern_ireland france spain portugal italy austria switzerland
    belgium netherlands luxembourg denmark norway sweden finland iceland poland czech_republic
    slovakia hungary romania bulgaria greece turkey russia ukraine belarus estonia latvia lithuania
    serbia croatia slovenia bosnia albania macedonia montenegro moldova georgia armenia azerbaijan
    kazakhstan uzbekistan iran iraq israel palestine lebanon syria jordan egypt libya tunisia
    algeria morocco sudan ethiopia kenya uganda tanzania ghana nigeria senegal mali cameroon congo
    angola zambia zimbabwe mozambique south_africa namibia botswana saudi_arabia yemen oman qatar
    kuwait united_arab_emirates afghanistan pakistan india nepal bhutan bangladesh sri_lanka myanmar
    burma thailand laos cambodia vietnam malaysia singapore indonesia philippines china hong_kong
    taiwan mongolia north_korea south_korea korea japan new_zealand papua_new_guinea fiji mexico
    guatemala honduras el_salvador nicaragua costa_rica panama cuba jamaica haiti dominican_republic
    puerto_rico trinidad colombia venezuela ecuador peru bolivia chile argentina uruguay paraguay
    brazil soviet_union yugoslavia czechoslovakia prussia
    """
)
# Nationalities stand alone: "American actor" answers two questions at once.
NATIONALITIES = _of(
    """
    american british english scottish welsh irish french german italian spanish portuguese dutch
    belgian swiss austrian danish norwegian swedish finnish icelandic polish czech slovak hungarian
    romanian bulgarian greek turkish russian ukrainian indian pakistani bangladeshi chinese japanese
    korean vietnamese thai indonesian malaysian filipino australian canadian mexican brazilian
    argentine argentinian chilean peruvian colombian cuban jamaican israeli iranian persian iraqi
    egyptian moroccan algerian nigerian kenyan ghanaian ethiopian african european asian soviet
    serbian croatian bosnian slovenian albanian estonian latvian lithuanian georgian armenian kazakh
    mongolian nepalese singaporean taiwanese hongkonger
    """
)
