"""Audible Shapes: drawn and synthesised clips in AVSBench's unified layout.

`python -m data_pipelines.make shapes --out=DIR` makes it. Every class has a look (shape and hue)
and a timbre; in most clips something that could sound is silent, so eyes alone cannot solve it.

    plan.py    who is in a clip, what sounds when     shapes.py  how a class looks
    scene.py   a plan -> frames, labels, waveform     sounds.py  how a class sounds
    write.py   clips -> files (`make`)

The same seed gives the same arrays on every machine: all chance is PCG64 doubles (a stream NumPy
does not change, unlike some of its distributions), all arithmetic float64 and rounded once, last.
"""

from data_pipelines.making.audible_shapes.write import make

__all__ = ["make"]
