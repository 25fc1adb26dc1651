"""What a config asks for, checked and made once."""
