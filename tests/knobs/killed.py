"""A process that turns a knob and is killed: before the knob was set, or while it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json, sys, time
from pathlib import Path
from perfnb.knobs import all_knobs, changing
from perfnb.recording import Recording
from perfnb.target import Target

path, folder, name, value, moment = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
recording = Recording.open(path)
knob = all_knobs(recording, Target.load(folder))[name]
if moment == "before":
    def hang(value):
        print("ready", flush=True)
        time.sleep(60)
    knob.set = hang
with changing(recording, knob, json.loads(value)):
    print("ready", flush=True)
    time.sleep(60)
"""


def turn_and_die(recording: Path, folder: Path, name: str, value: Any, moment: str = "while") -> None:
    """Turn the knob in another process and kill it with signal 9 at that moment."""
    command = [sys.executable, "-c", SCRIPT, str(recording), str(folder), name, json.dumps(value), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    assert said == "ready\n"
