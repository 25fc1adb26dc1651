"""Other people's weights -> ours, and back. `python -m aavs_jax.convert --help` is the door.

    files/          what lies on the disk -> tensors by name; nothing in a file is ever executed
    tables.py       which name is which parameter, format by format: data, as format.py has it
    recognising.py  names -> the format; strangers.py: formats that nothing here takes
    sizes.py        shapes -> the sizes of the network; huggingface.py: config.json, both ways
    engine.py       applies a table, exhaustively, in both directions; naming.py: its templates
    importing.py    sources -> parameters and their card -> a folder of weights
    fitting.py      sources merged, windows resized, a whole network made of parts
    exporting.py    weights -> a file in somebody else's layout
    accounting.py   what became of each tensor, for people and programs
    next_commands.py   what to type after that
    __main__.py     the command

Adding a format is adding a table: `tables.py` is the file to read first.
"""
