#!/usr/bin/env python3
"""Spoken commands: a grammar of sentences, their speech by espeak-ng, and rooms and noise.

`whisper.py` trains on them. As a program it writes recordings that the training has not heard: other
sentences, half of them in voices and accents that it has not heard either.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

RATE = 16_000

GRAMMAR = {
    "sentence": """<light> | <light> | <device> | <timer> | <timer> | <alarm> | <music> | <music> | <weather>
        | <weather> | <list> | <contact> | <calendar> | <question> | <digits> | <digits> | <digits> | <number>
        | <number> | <sum> | <door> | <heating> | <manners> <light> | <manners> <timer> | <manners> <music>
        | <short>""",
    "manners": "please | could you | can you",
    "short": """yes | no | stop | cancel | thank you | good morning | good evening | good night | help
        | never mind | start | pause | resume | next | previous | louder | quieter | mute""",
    "room": """kitchen | bedroom | bathroom | living room | dining room | office | garage | hallway | garden
        | basement""",
    "switch": "turn | switch",
    "state": "on | off",
    "colour": "red | green | blue | yellow | white | purple | orange | pink",
    "lamp": "light | lights | lamp",
    "where": "in the <room>",
    "light": """<switch> <state> the <lamp> | <switch> the <lamp> <state> | <switch> <state> the <room> <lamp>
        | <switch> the <room> <lamp> <state> | <switch> <state> the <lamp> <where> | dim the <lamp> <where>
        | dim the <room> <lamp> to <percent> | set the <room> <lamp> to <colour> | make the <lamp> <colour>
        | make the <room> <lamp> brighter | make the <room> <lamp> darker | <switch> <state> all the lights""",
    "percent": "<tens> percent | <under hundred> percent | one hundred percent",
    "thing": "fan | heating | television | radio | camera | oven | kettle | vacuum | speaker | alarm",
    "device": """<switch> <state> the <thing> | <switch> the <thing> <state> | <switch> <state> the <thing> <where>
        | is the <thing> on | start the vacuum <where>""",
    "opening": "door | window | blinds | curtains | gate",
    "door": """open the <opening> | close the <opening> | open the <room> <opening> | close the <room> <opening>
        | lock the <where door> door | unlock the <where door> door | is the <where door> door locked
        | close the <opening> <where>""",
    "where door": "front | back | garage",
    "heating": """set the heating to <under thirty> degrees | set the temperature <where> to <under thirty> degrees
        | make it warmer <where> | make it colder <where> | what is the temperature <where>""",
    "duration": """<under hundred> minutes | <small> minutes | <small> hours | <tens> seconds | one minute | one hour
        | half an hour | <small> hours and <under hundred> minutes | <small> minutes and <tens> seconds""",
    "food": "pasta | rice | eggs | bread | tea | coffee | cake | soup",
    "timer": """set a timer for <duration> | start a timer for <duration> | set a <food> timer for <duration>
        | cancel the timer | stop the timer | how long is left on the timer | how long is left on the <food> timer
        | add <small> minutes to the timer""",
    "day": "monday | tuesday | wednesday | thursday | friday | saturday | sunday | today | tomorrow",
    "part": "in the morning | in the afternoon | in the evening | tonight",
    "clock": """<hour> | <hour> <under sixty> | half past <hour> | quarter past <hour> | quarter to <hour>
        | <minutes past> past <hour> | <minutes past> to <hour> | noon | midnight""",
    "hour": "one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve",
    "minutes past": "five | ten | twenty | twenty five",
    "alarm": """wake me up at <clock> | wake me up at <clock> <part> | set an alarm for <clock>
        | set an alarm for <clock> on <weekday> | cancel the alarm | cancel my alarm for <clock>
        | wake me up <day> at <clock>""",
    "weekday": "monday | tuesday | wednesday | thursday | friday | saturday | sunday",
    "style": "jazz | rock | classical | pop | folk",
    "music": """play some <style> music | play <style> music <where> | play the next song | play the previous song
        | skip this song | pause the music | stop the music | resume the music | turn the volume up
        | turn the volume down | set the volume to <percent> | turn the music down <where> | play my <style> playlist
        | play it again | what song is this | turn up the radio | play some music <where>""",
    "city": """london | paris | berlin | madrid | rome | vienna | tokyo | boston | chicago | dublin | glasgow
        | sydney""",
    "weather": """what is the weather like in <city> | what is the weather like <day> | will it rain <day>
        | will it snow in <city> <day> | how cold is it outside | how hot will it be <day> | how warm is it in <city>
        | is it going to rain <part> | what is the forecast for <weekday> | do i need an umbrella <day>
        | will the sun shine in <city>""",
    "goods": """milk | bread | eggs | butter | cheese | apples | bananas | coffee | tea | rice | water | sugar | onions
        | tomatoes | potatoes | chicken | fish | salt""",
    "list": """add <goods> to the shopping list | add <goods> and <goods> to the shopping list
        | add <small> <counted> to the shopping list | remove <goods> from the shopping list
        | what is on the shopping list | put <goods> on my list | remind me to buy <goods>
        | remind me to buy <goods> <day>""",
    "counted": "eggs | apples | bananas | onions | tomatoes | potatoes",
    "person": "mum | dad | anna | peter | mary | john | sarah | tom | david | the doctor",
    "contact": """call <person> | call <person> at <clock> | send a message to <person> | read my messages
        | tell <person> i will be late | tell <person> i am on my way | ask <person> to call me <part>
        | remind me to call <person> at <clock> | dial <digits>""",
    "event": "meeting | lunch | dinner | breakfast | appointment",
    "month": """january | february | march | april | may | june | july | august | september | october | november
        | december""",
    "calendar": """what is on my calendar <day> | add a <event> with <person> on <weekday> at <clock>
        | move my <event> to <clock> | cancel my <event> with <person> | when is my next <event>
        | when is my <event> with <person> | the <event> is on <month> <under thirty>""",
    "question": """what time is it | what day is it | what time is it in <city> | what is the date today
        | where is my phone | what is the news today | tell me a joke | how are you""",
    "digit": "zero | one | two | three | four | five | six | seven | eight | nine",
    "digits": """<digit> <digit> <digit> | <digit> <digit> <digit> <digit> | <digit> <digit> <digit> <digit> <digit>
        | <digit> <digit> <digit> <digit> <digit> <digit> | <digit> <digit> <digit> <digit> <digit> <digit> <digit>
        | <digit> | <digit> <digit>""",
    "small": "two | three | four | five | six | seven | eight | nine | ten | twelve",
    "teen": """ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen""",
    "ten": "twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety",
    "tens": "ten | <ten>",
    "unit": "one | two | three | four | five | six | seven | eight | nine",
    "under sixty": "ten | fifteen | twenty | <teen> | twenty <unit> | thirty <unit> | forty <unit> | fifty <unit>",
    "under thirty": "<unit> | <teen> | twenty | twenty <unit>",
    "under hundred": "<unit> | <teen> | <ten> | <ten> <unit> | <ten> <unit>",
    "under thousand": """<under hundred> | <unit> hundred | <unit> hundred and <under hundred>
        | <unit> hundred and <under hundred>""",
    "number": """<under thousand> | <unit> thousand | <unit> thousand <unit> hundred and <under hundred>
        | minus <under hundred> | <under hundred> point <digit> | <under hundred> point <digit> <digit>""",
    "sum": """what is <under hundred> plus <under hundred> | what is <under hundred> minus <under hundred>
        | what is <under hundred> times <unit> | what is <under thousand> divided by <unit>""",
}
RULES = {name: [" ".join(o.split()) for o in rule.split("|")] for name, rule in GRAMMAR.items()}

ACCENTS = ["en-US", "en-US", "en-GB-x-rp", "en", "en-GB-scotland", "en-GB-x-gbclan", "en-GB-x-gbcwmd"]
VARIANTS = (
    "m1 m2 m3 m4 m5 m7 f1 f2 f3 f4 klatt2 klatt3 Annie Diogo Gene Lee Marco Mario Michael adam anika "
    "aunty belinda benjamin caleb edward grandma grandpa john linda max paul rob robert steph zac"
).split()
UNHEARD_ACCENT = "en-US-nyc"
UNHEARD_VARIANTS = ["m6", "f5", "Andy", "Alicia", "david", "victor"]


@dataclass
class Voice:
    """How espeak-ng is to speak."""

    name: str
    words_per_minute: int
    pitch: int
    pitch_range: int

    @staticmethod
    def heard(rng: random.Random) -> Voice:
        """A voice of the training."""
        variant = rng.choice(["", *VARIANTS])
        name = f"gmw/{rng.choice(ACCENTS)}" + (f"+{variant}" if variant else "")
        return Voice(name, rng.randint(115, 215), rng.randint(25, 75), rng.randint(25, 75))

    @staticmethod
    def unheard(rng: random.Random) -> Voice:
        """A voice that the training never has: by its variant, its accent, or both; some faster or slower."""
        variant = rng.choice(UNHEARD_VARIANTS + VARIANTS)
        accent = UNHEARD_ACCENT if variant in VARIANTS else rng.choice([*ACCENTS, UNHEARD_ACCENT])
        speed = rng.choice([rng.randint(115, 215), rng.randint(105, 114), rng.randint(216, 230)])
        return Voice(f"gmw/{accent}+{variant}", speed, rng.randint(25, 75), rng.randint(25, 75))


@dataclass
class Speech:
    """A spoken sentence."""

    text: str
    voice: str
    samples: np.ndarray
    """At 16 kHz, without silence around it, the loudest at 0.5."""
    words: list[tuple[float, float]] | None
    """When each word begins and ends, in seconds, where espeak-ng tells."""


def sentence(rng: random.Random) -> str:
    """A sentence of the grammar."""

    def expand(rule: str) -> str:
        option = rng.choice(RULES[rule])
        return re.sub(r"<([^>]+)>", lambda match: expand(match[1]), option)

    text = expand("sentence")
    return re.sub(r"\ba (?=appointment)", "an ", text)


FIXED = {option for options in RULES.values() for option in options if "<" not in option}


def is_held_out(text: str) -> bool:
    """Whether a sentence is kept from the training: one in ten of those that are put together.

    One that the grammar has as it is may be the only one with some of its words.
    """
    long = len(text.split()) > 3 and text not in FIXED
    return long and zlib.crc32(text.encode()) % 10 == 0


def vocabulary() -> list[str]:
    """The words of the grammar."""
    text = " ".join(option for options in RULES.values() for option in options)
    return sorted(set(re.sub(r"<[^>]+>", " ", text).split()) | {"an"})


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_SYNCHRONOUS, _UTF8, _WORD = 2, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4


class Speaker:
    """espeak-ng as a library, which tells when its words begin; one a process."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        assert self.rate > 0, "espeak-ng does not start"
        self.pcm: list[bytes] = []
        self.begins: dict[int, float] = {}
        self.callback = _CALLBACK(self._take)
        self.lib.espeak_SetSynthCallback(self.callback)

    def _take(self, wave: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        if count > 0:
            self.pcm.append(ctypes.string_at(wave, 2 * count))
        index = 0
        while events[index].type:
            if events[index].type == _WORD:
                self.begins[events[index].text_position - 1] = events[index].audio_position / 1000
            index += 1
        return 0

    def speak(self, text: str, voice: Voice, ending: str = "") -> Speech:
        """Speak a sentence; `ending` is punctuation, which gives it its melody."""
        self.pcm, self.begins = [], {}
        assert self.lib.espeak_SetVoiceByName(voice.name.encode()) == 0, voice.name
        for parameter, value in (
            (_RATE, voice.words_per_minute),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            self.lib.espeak_SetParameter(parameter, value, 0)
        spoken = (text + ending).encode()
        self.lib.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(self.pcm), np.int16).astype(np.float32)
        samples = resample_poly(samples, 320, 441) if self.rate == 22_050 else samples
        assert self.rate in (RATE, 22_050)
        samples *= 0.5 / np.abs(samples).max()
        loud = np.flatnonzero(np.abs(samples) > 0.005)
        first, last = int(loud[0]), int(loud[-1]) + 1
        positions = [match.start() for match in re.finditer(r"\S+", text)]
        words = None
        if all(position in self.begins for position in positions):
            begins = [max(0.0, self.begins[p] - first / RATE) for p in positions]
            words = list(zip(begins, [*begins[1:], (last - first) / RATE], strict=True))
        return Speech(text, voice.name, samples[first:last].astype(np.float32), words)


def random_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound of a small room, or of a narrow telephone line, or neither."""
    kind = rng.random()
    if kind < 0.35:
        length = int(RATE * rng.uniform(0.05, 0.3))
        decay = np.exp(-6.9 * np.arange(length) / length)
        response = rng.standard_normal(length) * decay * rng.uniform(0.02, 0.12)
        response[0] = 1.0
        out = fftconvolve(samples, response)
        # The tail is left to the next sound.
        out = out[: len(samples) + length // 3]
    elif kind < 0.45:
        band = [rng.uniform(100, 350), rng.uniform(3000, 6000)]
        out = sosfilt(butter(2, band, "bandpass", fs=RATE, output="sos"), samples)
    else:
        return samples
    return (out * (0.5 / np.abs(out).max())).astype(np.float32)


def random_noise(length: int, rng: np.random.Generator, babble: list[np.ndarray]) -> np.ndarray:
    """Noise of some colour, hum, or many voices, with a mean square of 1."""
    kind = rng.random()
    if kind < 0.25 and babble:
        noise = np.zeros(length, np.float32)
        for _ in range(rng.integers(4, 8)):
            voice = babble[rng.integers(len(babble))]
            start = rng.integers(length)
            part = np.resize(voice, length)
            noise += np.roll(part, start) * rng.uniform(0.4, 1.0)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(length))
        frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20)
        spectrum *= frequency ** -rng.uniform(0.0, 1.2)
        noise = np.fft.irfft(spectrum, length)
        if kind > 0.85:
            time = np.arange(length) / RATE
            hum = sum(np.sin(2 * np.pi * rng.choice([50, 60]) * k * time) / k for k in (1, 2, 3))
            noise = noise / noise.std() + hum * rng.uniform(0.5, 2.0)
    return (noise / max(1e-9, float(noise.std()))).astype(np.float32)


def recording(
    speaker: Speaker, texts: list[str], voice: Voice, rng: random.Random, clean: bool
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Sentences with pauses around them, in a room, in noise; and when each begins and ends."""
    random_state = np.random.default_rng(rng.getrandbits(32))
    parts, times = [], []
    at = 0.0
    for text in texts:
        pause = np.zeros(int(RATE * rng.uniform(0.15, 0.8)), np.float32)
        spoken = speaker.speak(text, voice, rng.choice(["", ".", "!"])).samples
        if not clean:
            spoken = random_room(spoken, random_state)
        parts += [pause, spoken]
        begin = at + len(pause) / RATE
        at = begin + len(spoken) / RATE
        times.append((begin, at))
    parts.append(np.zeros(int(RATE * rng.uniform(0.2, 0.8)), np.float32))
    samples = np.concatenate(parts) * rng.uniform(0.3, 1.6)
    if not clean:
        babble = [speaker.speak(sentence(rng), Voice.heard(rng)).samples for _ in range(8)]
        speech = np.sqrt(np.mean(samples[np.abs(samples) > 0.003] ** 2))
        level = speech * 10 ** (-rng.uniform(8, 30) / 20)
        samples = samples + random_noise(len(samples), random_state, babble) * level
    return np.clip(samples, -1, 1), times


def main() -> None:
    """Write held-out recordings as FLAC and their transcripts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--long", type=int, default=10, help="how many of them have six sentences")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)
    speaker = Speaker()
    lines: list[str] = []
    said: set[str] = set()
    for index in range(args.count):
        unheard = index % 2 == 1
        clean = index % 4 < 2
        texts: list[str] = []
        wanted = 6 if index >= args.count - args.long else 1
        while len(texts) < wanted:
            text = sentence(rng)
            if is_held_out(text) and text not in said:
                texts.append(text)
                said.add(text)
        voice = Voice.unheard(rng) if unheard else Voice.heard(rng)
        samples, _ = recording(speaker, texts, voice, rng, clean)
        group = f"{'unheard' if unheard else 'heard'} voices, {'clean' if clean else 'noisy'}"
        group = "long, all voices and noises" if wanted > 1 else group
        name = f"{index:03}.flac"
        soundfile.write(args.out / name, samples, RATE, "PCM_16")
        lines.append(f"{name}\t{' '.join(texts)}\t{group}\n")
    (args.out / "transcripts.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
