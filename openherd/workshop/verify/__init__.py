"""Whether a model is what its golden values say: file by file, fact by fact, and by running it."""
