"""Parts that networks are built of; nothing here knows a method."""
