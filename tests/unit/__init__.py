"""Pure decisions, and small effects in folders of the tests' own: no root, a few seconds in all."""
