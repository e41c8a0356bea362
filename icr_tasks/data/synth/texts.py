"""Wordings. Every fact sentence names its entity, so a passage can be read alone."""

from __future__ import annotations

SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "born_in": ("{name} was born in {value}.", "The birthplace of {name} is {value}.", "{name} came into the world in {value}."),
        "born_on": ("The birth of {name} is recorded on {value}.", "{name} was born on {value}.", "The date of birth of {name} is {value}."),
        "occupation": ("{name} worked as a {value}.", "By profession {name} was a {value}.", "{name} made a living as a {value}."),
    },
    "company": {
        "founder": ("{name} was founded by {value}.", "The founder of {name} is {value}.", "{value} established {name}."),
        "based_in": ("{name} has its headquarters in {value}.", "The head office of {name} is in {value}.", "{name} is based in {value}."),
        "founded": ("{name} opened for business in {value}.", "The founding year of {name} is {value}.", "{name} dates from {value}."),
        "product": ("{name} is known for its {value}.", "The main product of {name} was {value}.", "{name} made {value}."),
    },
    "work": {
        "author": ("{name} was written by {value}.", "The author of {name} is {value}.", "{value} wrote {name}."),
        "year": ("{name} first appeared in {value}.", "The year of publication of {name} is {value}.", "{name} was published in {value}."),
        "genre": ("{name} is a {value}.", "{name} is usually called a {value}.", "Libraries list {name} as a {value}."),
    },
    "city": {
        "river": ("{name} lies on the river {value}.", "The river {value} runs through {name}.", "{name} grew up beside the river {value}."),
        "charter": ("{name} received its charter in {value}.", "The town charter of {name} was sealed in {value}.", "{name} became a town in {value}."),
        "known_for": ("{name} is known for its {value}.", "Traders came to {name} for {value}.", "The fair of {name} sold {value}."),
    },
}  # fmt: skip

FILLER: dict[str, tuple[str, ...]] = {
    "person": (
        "Letters from that time describe a patient and rather private character with a dry sense of humour.",
        "Most of the early papers were lost in a fire, and later accounts often repeat each other.",
        "Neighbours remembered long walks at dawn and a habit of taking notes on loose scraps of paper.",
        "A portrait by an unknown hand was found in an attic and now hangs in a small reading room.",
        "Several streets and one modest prize keep the memory of {name} alive among local readers.",
        "Critics of the period were divided, though few denied the care that went into every detail.",
        "The family kept few records, so much of what is told about the childhood rests on hearsay.",
        "Students spoke of a strict but generous teacher who never refused a good question.",
    ),
    "company": (
        "The firm survived two lean decades by repairing what others had thrown away.",
        "Its workers formed a choir that still sings at the yearly meeting of the shareholders.",
        "An old account book of {name} shows that the first customers paid in grain and firewood.",
        "A flood destroyed the archive, and the early history had to be pieced together from invoices.",
        "Visitors could watch the workshop through a long gallery of narrow windows.",
        "Rivals copied the designs within a few seasons, yet rarely reached the same quality.",
        "The sign above the gate was repainted every spring by the youngest apprentice.",
        "Trade journals praised the steady prices and the short waiting times.",
    ),
    "work": (
        "Early reviewers complained about its length, while later readers praised its quiet tone.",
        "Only a handful of first copies survive, most of them with notes in the margins.",
        "The manuscript was carried across three borders before a printer accepted it.",
        "A shortened edition for schools made {name} familiar to a wider public.",
        "Translators have struggled with its puns and with the long description of the harbour.",
        "The central character never receives a name, which has puzzled commentators ever since.",
        "A stage version closed after nine evenings but is still quoted in handbooks.",
        "Collectors look for the blue binding, which was used for a single printing.",
    ),
    "city": (
        "The old market hall burned twice and was rebuilt each time with thicker walls.",
        "Travellers praise the view from the northern gate and complain about the steep lanes.",
        "A tram line once linked the lower quarter with the orchards on the hill.",
        "In winter the fog can last for weeks, and the lamps of {name} burn at noon.",
        "The town library owns a large collection of weather diaries kept by local teachers.",
        "Twice a year the shops close early for a procession whose origin nobody can explain.",
        "Several films were shot in the narrow streets behind the granary.",
        "The local dialect keeps words that neighbouring towns gave up long ago.",
    ),
}
