"""Other people's weights -> ours, and back. `python -m aavs_jax.convert --help` is the door.

    formats.py      all that can be converted: a method's own names are in methods/<name>/weights.py
    files/          what lies on the disk -> tensors by name; nothing in a file is ever executed
    recognising.py  names -> the format; strangers.py: formats that nothing here takes
    sizes.py        shapes -> the sizes of the network, held against config.json
    engine.py       applies a key table, exhaustively, in both directions; naming.py: its templates
    importing.py    sources -> parameters and their card
    fitting.py      sources merged, a whole network made of parts; windows.py: windows resized
    exporting.py    weights -> a folder of weights, or a file in somebody else's layout
    accounting.py   what became of each tensor, for people and programs
    next_commands.py   what to type after that
    __main__.py     the command

A new method brings KINDS in its weights.py, written in the language of
methods/parts/key_tables.py.
"""
