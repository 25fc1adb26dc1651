"""What publishers of data sets decided; imports nothing."""
