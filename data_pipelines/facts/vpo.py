"""The facts of VPO (Chen et al., "A Closer Look at Audio-Visual Segmentation", arXiv 2304.02970).

VPO shows one still picture of COCO with 3 seconds of VGGSound per sounding object. Its classes are
the COCO objects that VGGSound has recordings of; COCO's `person` is split into three by its voice.
"""

# The numbers that the mask files and the column cateId hold: COCO's own category numbers, and three
# numbers above COCO's 90 for the three kinds of person.
COCO_IDS = {
    "airplane": 5,
    "baby": 94,
    "bird": 16,
    "bus": 6,
    "car": 3,
    "cat": 17,
    "cell phone": 77,
    "cow": 21,
    "dog": 18,
    "elephant": 22,
    "female": 93,
    "horse": 19,
    "keyboard": 76,
    "male": 92,
    "motorcycle": 4,
    "mouse": 74,
    "sheep": 20,
    "skateboard": 41,
    "sports ball": 37,
    "tennis racket": 43,
    "zebra": 24,
}

# By class id.
CLASS_NAMES = ("background", *COCO_IDS)

BACKGROUND_ID = 0  # in the mask files
IGNORED_ID = 255  # in the mask files: a pixel that counts for nothing

PERSON = "person"  # COCO's name of what VPO splits into the next three
PEOPLE = ("baby", "female", "male")

# COCO's category name -> the classes that its objects may be: itself, or for a person one of three.
COCO_NAME_TO_IDS = {
    **{name: (number,) for name, number in COCO_IDS.items() if name not in PEOPLE},
    PERSON: tuple(COCO_IDS[name] for name in PEOPLE),
}

SECONDS = 3  # of sound that belong to a picture
SUBSETS = ("ss", "ms", "msmi")
