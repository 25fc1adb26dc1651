"""Names in folders of one's own clips, the same for preparing and for predicting."""

SOUND_NAMES = ("audio.wav", "audio.flac", "audio.ogg")  # heard instead of a video's sound track
LABELS_NAME = "labels"  # a folder beside the frames or the video


def passed_over(name: str) -> bool:
    """Whether an entry of a folder is none of the user's: hidden, or left by unpacking on a Mac."""
    return name.startswith(".") or name == "__MACOSX"
