"""What can be converted: nobody has published such a network."""

KINDS = ()
