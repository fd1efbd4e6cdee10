"""Pure: values and decisions, without any I/O."""
