"""The command `herd`: one short module per verb, imported only when that verb runs."""
