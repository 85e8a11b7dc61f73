"""Random messages of both directions, from the codec's own table."""

from hypothesis import strategies as st

from cython_core import ouch
from cython_core.ouch import INBOUND, OUTBOUND, TAGS

TEXT = st.characters(min_codepoint=33, max_codepoint=126)


def values(field):
    """Any value that a field can hold."""
    if field.kind == "text":
        return st.text(TEXT, max_size=field.width)
    if field.kind == "letter":
        return st.characters(min_codepoint=0, max_codepoint=255)
    bits = 8 * field.width
    if field.kind == "signed":
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
    return st.integers(0, (1 << bits) - 1)


def messages(direction):
    """(letter, fixed fields, options) of any message; the options are the tags it may carry."""
    table = {"in": INBOUND, "out": OUTBOUND}[direction]
    return st.sampled_from(sorted(table)).flatmap(lambda letter: message(table[letter]))


def message(shape):
    fields = st.fixed_dictionaries({field.name: values(field) for field in shape.fields})
    tags = st.fixed_dictionaries(
        {}, optional={TAGS[number].name: values(TAGS[number]) for number in shape.tags})
    return st.tuples(st.just(shape.letter), fields, tags)


# -- bytes for the door --------------------------------------------------------------------------

# Letters that mean something somewhere, so that most random messages are nearly right.
LETTERS = st.sampled_from("BSTEYNAZPRO01345 6ECHLMQmIJ\0\xff")
SYMBOLS = st.sampled_from(["BTC-USDT", "AAPL", "NOSUCH", ""])


def likely_values(field):
    """Values near what the door serves."""
    if field.name == "symbol":
        return SYMBOLS
    if field.kind == "letter":
        return LETTERS
    if field.kind == "text":
        return st.sampled_from(["", "ABCD"[:field.width]])
    return st.sampled_from([0, 0, 1, 100, (1 << 8 * field.width - 1) - 1])


def likely_fields(shape):
    served = {"side": "B", "time_in_force": "0", "display": "Y", "capacity": "P", "iso": "N",
              "cross_type": "N", "symbol": "BTC-USDT"}
    return st.fixed_dictionaries({
        field.name: st.one_of(st.just(served[field.name]), likely_values(field))
        if field.name in served else likely_values(field) for field in shape.fields})


@st.composite
def appendages(draw):
    """Elements of known, unknown and private tags in any order, now and then a wrong one."""
    parts = []
    for number in draw(st.lists(st.sampled_from([*TAGS, 8, 19, 127, 135, 255]), max_size=5)):
        tag = TAGS.get(number)
        raw = draw(st.binary(max_size=4))
        if tag is not None and draw(st.integers(0, 30)):
            value = draw(likely_values(tag))
            raw = ouch.encode_inbound("Q", {tag.name: value})[5:]
        parts.append(bytes((1 + len(raw), number)) + raw)
    parts.append(draw(st.sampled_from([b""] * 20 + [b"\0", b"\x09\x02AB"])))
    return b"".join(parts)


@st.composite
def inbound_bytes(draw):
    """One inbound message as bytes, usually well formed."""
    shape = draw(st.sampled_from(list(INBOUND.values())))
    fields = draw(likely_fields(shape))
    whole = ouch.encode_inbound(shape.letter, **fields)[:shape.fixed_bytes]
    if shape.appendage == "optional" and draw(st.booleans()):
        return whole
    appendage = draw(appendages()) if draw(st.booleans()) else b""
    wrong = draw(st.sampled_from([0] * 20 + [1]))
    return whole + (len(appendage) + wrong).to_bytes(2, "big") + appendage
