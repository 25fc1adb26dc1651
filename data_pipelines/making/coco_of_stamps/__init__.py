"""A COCO folder and recordings by class, of the media of Audible Stamps: what VPO is made of.

`python -m data_pipelines.make coco --out DIR` makes it; `python -m data_pipelines.make vpo` of it
a VPO-MSMI, in most of whose pictures only stereo sound tells what sounds (pictures.py).

    pictures.py  who is in a picture, and the picture        write.py  the folder (`make`)
"""

from data_pipelines.making.coco_of_stamps.write import make

__all__ = ["make"]
