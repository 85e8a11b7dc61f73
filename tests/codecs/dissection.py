"""What tshark shows of a capture with config/wireshark/matchd.lua, as Python values."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest
from capture import Capture, Datagrams

from cython_core.ouch import INBOUND, OUTBOUND, TAGS

SCRIPT = Path(__file__).parents[2] / "config" / "wireshark" / "matchd.lua"
TCP_PORT, UDP_PORT = 9_001, 9_002
OPTION = "matchd.ouch.option."
TABLES = {"in": INBOUND, "out": OUTBOUND}
SHAPES = {name: {letter: {shape.name: shape for shape in message.fields}
                 for letter, message in table.items()} for name, table in TABLES.items()}
OPTIONS = {tag.name: tag for tag in TAGS.values()}


def why_not():
    """Why there is no dissector to test here; "" when there is one."""
    if shutil.which("tshark") is None:
        return "tshark is not installed"
    version = subprocess.run(["tshark", "--version"], capture_output=True, text=True, timeout=60,
                             check=False).stdout
    return "" if "with Lua" in " ".join(version.split()) else "this tshark has no Lua"


needs_dissector = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is one")


@dataclass
class Message:
    """One OUCH message; `decoded` has the shape of `ouch.decode`. `texts` is what a user reads
    after each field's label; `errors` and `notes` are the complaints anywhere inside."""

    direction: str
    decoded: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    errors: list = field(default_factory=list)
    notes: list = field(default_factory=list)


@dataclass
class Frame:
    """One frame: its messages, the values of every other field by name, its complaints."""

    messages: list = field(default_factory=list)
    fields: dict = field(default_factory=dict)
    errors: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    cut: bool = False


def tshark(path, *arguments, script=True):
    """What tshark says, with the script or as it is; fails for what goes wrong inside."""
    ours = ["-X", f"lua_script:{SCRIPT}"] if script else []
    command = ["tshark", *ours, "-r", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    complaints = done.stderr.replace("Running as user \"root\" and group \"root\"."
                                     " This could be dangerous.", "").strip()
    assert not complaints, complaints
    assert "Lua Error" not in done.stdout
    return done.stdout


def dissect(path, *arguments):
    """The frames of a capture."""
    root = ElementTree.fromstring(tshark(path, "-T", "pdml", *arguments))
    return [_frame(packet) for packet in root.iter("packet")]


def messages_of(frames):
    """All messages of the frames."""
    return [message for frame in frames for message in frame.messages]


def write(path, sent, cut_bytes=0, port=0):
    """Write [(sender, data)] as datagrams (`path` begins with "udp") or as one connection."""
    kind = Datagrams if path.name.startswith("udp") else Capture
    capture = kind(port or (UDP_PORT if kind is Datagrams else TCP_PORT))
    for sender, data in sent:
        step = cut_bytes or max(1, len(data))
        for start in range(0, max(1, len(data)), step):
            capture.send(sender, data[start:start + step])
    capture.write(path)
    return path


def columns(path, *arguments):
    """[(protocol, info)] of each frame."""
    text = tshark(path, "-T", "fields", "-e", "_ws.col.Protocol", "-e", "_ws.col.Info", *arguments)
    return [tuple(line.split("\t")) for line in text.splitlines()]


def _frame(packet):
    frame = Frame()
    for element in packet.iter():
        name = element.get("name") or ""
        if name == "matchd.ouch" and element.tag == "proto":
            frame.messages.append(_message(element))
        elif name.startswith("matchd."):
            frame.fields.setdefault(name, []).append(element.get("show"))
        if name == "matchd.cut":
            frame.cut = True
    frame.errors, frame.notes = _complaints(packet)
    return frame


def _complaints(element):
    found = {"matchd.malformed": [], "matchd.unusual": []}
    for inner in element.iter("field"):
        if inner.get("name") in found:
            found[inner.get("name")].append(inner.get("showname"))
    return found["matchd.malformed"], found["matchd.unusual"]


def _message(element):
    fields = {}
    for inner in element.iter("field"):
        if (inner.get("name") or "").startswith("matchd.ouch."):
            fields.setdefault(inner.get("name").removeprefix("matchd.ouch."), inner)
    message = Message(fields["direction"].get("show"))
    message.errors, message.notes = _complaints(element)
    letter = bytes.fromhex(fields["type"].get("value")).decode("latin-1")
    message.decoded = {"type": letter}
    for name, shape in SHAPES[message.direction].get(letter, {}).items():
        if name in fields:
            message.decoded[name] = _value(shape, fields[name])
            message.texts[name] = fields[name].get("showname").split(": ", 1)[1]
    message.decoded["options"] = _options(element, message.texts)
    return message


def _options(element, texts):
    options = {}
    for holder in element.iter("field"):
        inside = {inner.get("name"): inner for inner in holder.findall("field")}
        if OPTION + "tag" not in inside:
            continue
        number = int(inside.pop(OPTION + "tag").get("show"))
        del inside[OPTION + "length"]
        values = [name for name in inside if (name or "").startswith(OPTION)]
        if not values:
            options.setdefault(f"tag_{number}", b"")
        for name in values:
            raw = bytes.fromhex(inside[name].get("value"))
            known = name.removeprefix(OPTION)
            if known == "unknown":
                options.setdefault(f"tag_{number}", raw)
            else:
                options[known] = _value(OPTIONS[known], inside[name])
                texts[known] = inside[name].get("showname").split(": ", 1)[1]
    return options


def _value(shape, element):
    """The value as the table of `ouch` has it; numbers are what tshark itself understood."""
    if shape.kind in ("number", "signed"):
        return int(element.get("show"), 0)
    text = bytes.fromhex(element.get("value")).decode("latin-1")
    return text.rstrip(" ") if shape.kind == "text" else text
