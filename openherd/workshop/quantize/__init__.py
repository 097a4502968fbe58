"""Model files made smaller: which tensor gets which block type, the codes, the recipe, and what it cost."""
