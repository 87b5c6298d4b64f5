"""`python -m keylm`: the command line, as `torchrun -m keylm` needs it."""

from keylm.cli import main

main()
