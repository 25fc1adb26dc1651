"""From a table of clips to array_record files and a report: the work behind `prepare`."""
