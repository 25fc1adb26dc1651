"""What any clip gets: masks as they come, films and a page of them; networks to be called."""

KINDS = ("masks", "objects", "overlay", "page")  # what may be written of a clip
