"""Audible Stamps: cut-out photographs with their recordings, in AVSBench's unified layout.

`python -m data_pipelines.make stamps --out=DIR` makes it from the media of two packages of
Debian and Ubuntu, tuxpaint-stamps-default and tuxpaint-data, which must be on the machine. The
classes keep their AVSBench ids; in most clips something that could sound is silent.

    stamps.py  which stamp is which class        sounds.py  a recording -> a source of T seconds
    media.py   the packages -> arrays            scene.py   a plan -> frames, labels, waveform
    plan.py    who is in a clip                  write.py   clips -> files (`make`)
    notes.py   licence and list of what is in

The same seed, packages and versions of the libraries give the same files, whatever the number of
clips or worker processes.
"""

from data_pipelines.making.audible_stamps.write import make

__all__ = ["make"]
