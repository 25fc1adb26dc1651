"""What may follow the name of a config.

The argument of a config is the data folder:

    --config=configs/avss.py                       built-in data, small network: minutes on a laptop
    --config=configs/avss.py:/data/avsbench        the paper's recipe, full size, on that folder
    --config=configs/avss.py:/data/avsbench,small  the small network on that folder
"""


def parse_argument(argument: str) -> tuple[str, bool]:
    """'/data/avsbench,small' -> (folder, whether the small network is wanted).

    A folder with a comma in its name has one more at its end: '/data/a,b,' or '/data/a,b,small'.
    """
    folder, _, small = parse_recipe(argument, ("",))
    return folder, small


def parse_recipe(argument: str, recipes: tuple[str, ...]) -> tuple[str, str, bool]:
    """'/data/avsbench,ms3,small' -> (folder, recipe, whether the small network is wanted).

    Args:
      argument: of a config: FOLDER[,RECIPE][,small].
      recipes: there are; the first is meant where none is named.

    Raises:
      ValueError: something else after the folder.
    """
    folder, small = argument, False
    head, comma, option = folder.rpartition(",")
    if comma and option == "small":
        folder, small = head, True
    head, comma, option = folder.rpartition(",")
    recipe = recipes[0]
    if comma and option in ("", *recipes):
        folder, recipe = head, option or recipe
    elif comma and not small:
        known = "".join(f"[,{'|'.join(recipes)}]" for _ in recipes[1:2])
        raise ValueError(
            f"the config's argument {argument!r} should be FOLDER{known}[,small]: there is no "
            f"option {option!r}; a folder with a comma in its name has one more at its end, FOLDER,"
        )
    return folder, recipe, small or not folder
