"""What `cgw --help` says about exit codes and files."""

EXIT_CODES = """\
exit codes:
  0  done, and nothing is wrong
  1  there is a problem, which the output names (status, doctor, trace, sync)
  2  the command line was not understood
  3  an annotation is invalid
  4  another guest, or the node itself, owns a port
  5  the configuration is invalid
  6  records, ruleset or files could not be changed
  7  libvirt or xenstore did not answer
  8  there is no such guest, port, node or file
  9  the cluster's registry, or this node's agent, did not answer or refused

files:
  /etc/cgw/cgw.toml   the node's configuration (or: $CGW_CONFIG)
  /run/cgw            what is published now (or: $CGW_RUNTIME_DIR)
"""
