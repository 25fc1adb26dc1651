"""Keys of `data.augment` of a stage, each with its unit."""

from ml_collections import ConfigDict


def augment(small: bool) -> ConfigDict:
    """Changes of training clips, each at random with a probability; 0 turns it off.

    None is in the paper's recipe. The ranges are ordinary ones. Compared systems: CAVP takes
    crops of pictures scaled by 0.5 to 2, flips and colour jitter; VCT scales, crops and jitters.

    Args:
      small: the small network flips.
    """
    augment = ConfigDict()
    augment.flip = 0.5 if small else 0.0  # left and right, of pictures and of stereo sound

    augment.resized_crop = ConfigDict()  # a part of the picture, enlarged to the whole
    augment.resized_crop.probability = 0.0  # such as 1.0
    augment.resized_crop.scale = (0.25, 1.0)  # area, share of the picture's: enlarged 1 to 2 times
    augment.resized_crop.ratio = (0.75, 1.333)  # width : height, relative to the picture's

    # The picture larger or smaller, and of it, or of what is around it, a part of the old size.
    augment.scaled_crop = ConfigDict()
    augment.scaled_crop.probability = 0.0  # such as 1.0
    augment.scaled_crop.scales = (0.5, 0.75, 1.0)  # factors, each as often

    augment.colour_jitter = ConfigDict()
    augment.colour_jitter.probability = 0.0  # such as 0.8
    augment.colour_jitter.brightness = (0.6, 1.4)  # factors
    augment.colour_jitter.contrast = (0.6, 1.4)
    augment.colour_jitter.saturation = (0.6, 1.4)
    augment.colour_jitter.hue = (-0.05, 0.05)  # turns of the colour circle

    augment.sound_gain = ConfigDict()  # louder or softer
    augment.sound_gain.probability = 0.0  # such as 0.5
    augment.sound_gain.decibels = (-10.0, 6.0)

    # A second clip's sound, of other classes, beside the clip's own; labels stay.
    augment.mix_sounds = ConfigDict()
    augment.mix_sounds.probability = 0.0  # such as 0.25
    augment.mix_sounds.decibels = (-10.0, 0.0)  # by how much the second is made louder

    # A sound of other classes instead of the clip's own: labels, and priors made from them, are
    # empty. CAVP pairs each picture with a wrong sound, too.
    augment.swap_sound = 0.0  # such as 0.1

    augment.time_shift = ConfigDict()  # the sound against the picture
    augment.time_shift.probability = 0.0  # such as 0.5
    augment.time_shift.windows = 20  # at most, either way; of 10 ms
    return augment
